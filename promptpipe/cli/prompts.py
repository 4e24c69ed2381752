"""Commands that prompt people. The client is imported as in `cli.admin`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from promptpipe.cli.admin import Json
from promptpipe.cli.remote import ORDER_SECONDS, Server, answer
from promptpipe.cli.start import EXIT_USAGE, fail
from promptpipe.cli.tables import show_one

if TYPE_CHECKING:
    from promptpipe.client import v1

prompts = typer.Typer(help="Prompts that are sent now.", no_args_is_help=True)

Who = Annotated[str, typer.Argument(metavar="ID|NUMBER", help="Their id, or a number of theirs with its +.")]
Text = Annotated[str, typer.Argument(help="What is said; with --generate, what the language model is asked.")]
Generate = Annotated[bool, typer.Option("--generate", help="Let the language model write it.")]
System = Annotated[str, typer.Option(help="With --generate: what the model is to be.")]
Options = Annotated[
    list[str] | None, typer.Option("--option", metavar="LABEL=ANSWER", help="A choice, and what is said to it.")
]
Conversation = Annotated[bool, typer.Option("--conversation", help="Whatever their flow has to say.")]
Generator = Annotated[str | None, typer.Option(help="The registered generator that makes it.", metavar="NAME")]
Parameters = Annotated[str, typer.Option(help="With --generator: a JSON object.", metavar="JSON")]


def prompt_of(
    text: str,
    *,
    generate: bool,
    system: str,
    options: list[str] | None,
    conversation: bool,
    generator: str | None,
    parameters: str,
) -> v1.Prompt:
    """Return the prompt that the options of a command ask for; exit when they contradict each other."""
    from promptpipe.client import Struct, v1  # noqa: PLC0415

    if generate + bool(options) + conversation + (generator is not None) > 1:
        fail("only one of --generate, --option, --conversation and --generator makes a prompt", EXIT_USAGE)
    if generate:
        return v1.Prompt(genai=v1.PromptGenAi(system_prompt=system, user_prompt=text))
    if options:
        pairs = [option.partition("=") for option in options]
        choices = [v1.PromptOption(label=label, body=body) for label, _, body in pairs]
        return v1.Prompt(branch=v1.PromptBranch(body=text, options=choices))
    if conversation:
        return v1.Prompt(conversation=v1.PromptConversation())
    if generator is not None:
        values = json_object("--parameters", parameters)
        return v1.Prompt(custom=v1.PromptCustom(generator=generator, parameters=Struct.from_dict(values)))
    return v1.Prompt(static=v1.PromptStatic(body=text))


def json_object(option: str, text: str) -> dict[str, object]:
    """Return the JSON object in an option's value; exit when it is none."""
    try:
        values = json.loads(text)
    except ValueError:
        values = None
    if not isinstance(values, dict):
        fail(f"{option}: must be a JSON object", EXIT_USAGE)
    return values


@prompts.command("send")
def send(
    who: Who,
    text: Text = "",
    generate: Generate = False,
    system: System = "",
    options: Options = None,
    conversation: Conversation = False,
    generator: Generator = None,
    parameters: Parameters = "{}",
    key: Annotated[str | None, typer.Option(help="Sent once in 30 days under this key.")] = None,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Prompt somebody now, and show the message."""
    from promptpipe.client import v1  # noqa: PLC0415

    prompt = prompt_of(
        text,
        generate=generate,
        system=system,
        options=options,
        conversation=conversation,
        generator=generator,
        parameters=parameters,
    )
    request = v1.SendPromptRequest(
        **{"to" if who.startswith("+") else "participant_id": who}, prompt=prompt, dedupe_key=key
    )
    sent = answer(v1.PromptServiceStub, "send_prompt", request, server, seconds=ORDER_SECONDS)
    show_one(sent.message, as_json=as_json)
