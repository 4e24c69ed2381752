"""What is asked of a model, and what becomes of whatever it answers."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio

from promptpipe.genai import GenAiConfig
from promptpipe.genai.client import MAX_ANSWER
from promptpipe.metrics import PrometheusMetrics
from promptpipe.model.chat import ChatMessage, Generated, Role, Tool, ToolCall
from promptpipe.model.errors import GenerationError
from promptpipe.services.observations import Observation
from tests.support.eventually import eventually
from tests.support.model import KEY, completion, open_generator, open_model, said
from tests.support.peer import http
from tests.support.scrape import scraped

HELLO = (
    ChatMessage(role=Role.SYSTEM, content="You are a parrot."),
    ChatMessage(role=Role.USER, content="hello"),
)
LOOK_UP = Tool(name="look_up", description="Looks up.", parameters={"type": "object", "properties": {}})


async def test_chat_is_asked_as_the_api_has_it() -> None:
    """Messages, tools, the model's name and the key; temperature and length only where they are set."""
    async with open_model() as model:
        async with open_generator(model) as generator:
            assert await generator.generate(HELLO) == Generated(text="I see.")
        async with open_generator(model, temperature=0.5, max_tokens=100) as generator:
            call = ToolCall(id="c1", name="look_up", arguments='{"word": "é"}')
            chat = (
                *HELLO,
                ChatMessage(role=Role.ASSISTANT, content="", tool_calls=(call,)),
                ChatMessage(role=Role.TOOL, content="nothing", tool_call_id="c1"),
            )
            await generator.generate(chat, [LOOK_UP])
        [request, _] = model.peer.requests
        head = request.partition(b"\r\n\r\n")[0].decode().lower()
        assert head.startswith("post /v1/chat/completions http/1.1")
        assert f"authorization: bearer {KEY}" in head
        plain, full = model.asked
    assert plain == {
        "model": "parrot",
        "messages": [{"role": "system", "content": "You are a parrot."}, {"role": "user", "content": "hello"}],
    }
    assert (full["temperature"], full["max_tokens"]) == (0.5, 100)
    function = {"name": "look_up", "arguments": '{"word": "é"}'}
    assert full["messages"][2:] == [
        {"role": "assistant", "content": "", "tool_calls": [{"id": "c1", "type": "function", "function": function}]},
        {"role": "tool", "content": "nothing", "tool_call_id": "c1"},
    ]
    assert full["tools"] == [
        {
            "type": "function",
            "function": {"name": "look_up", "description": "Looks up.", "parameters": dict(LOOK_UP.parameters)},
        }
    ]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (said("Hi"), Generated(text="Hi")),
        (said(None), Generated(text="")),
        (said("a\0b\ud800"), Generated(text="a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}")),
        (said({"text": "Hi"}), Generated(text="")),
        (
            said(None, ("look_up", "{}"), ("", None)),
            Generated(
                text="",
                tool_calls=(
                    ToolCall(id="call_0", name="look_up", arguments="{}"),
                    ToolCall(id="call_1", name="", arguments=""),
                ),
            ),
        ),
        (
            completion({"choices": [{"message": {"content": "Hi", "tool_calls": [None, {"function": 7}]}}]}),
            Generated(
                text="Hi",
                tool_calls=(
                    ToolCall(id="call_0", name="", arguments=""),
                    ToolCall(id="call_1", name="", arguments=""),
                ),
            ),
        ),
        (completion({"choices": [{"message": {"content": "Hi", "tool_calls": "look_up"}}]}), Generated(text="Hi")),
    ],
)
async def test_answer_is_taken_for_what_it_is(answer: bytes, expected: Generated) -> None:
    """Text, wishes, both or neither; what is of no shape is nothing."""
    async with open_model(answer) as model, open_generator(model) as generator:
        assert await generator.generate(HELLO, [LOOK_UP]) == expected


async def test_no_more_wishes_than_anybody_can_have() -> None:
    """An endless list of them is cut."""
    async with open_model(said("", *[("look_up", "{}")] * 500)) as model, open_generator(model) as generator:
        assert len((await generator.generate(HELLO)).tool_calls) == 32


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (
            http("401 Unauthorized", b'{"error": {"message": "bad key sk-not-to-be-seen"}}'),
            "answered 401 Unauthorized$",
        ),
        (http("404 Not Found", b"hello there"), "answered 404 Not Found$"),
        (http("400 Bad Request", b'{"error": "hello"}', Content_Type="application/json"), "answered 400 Bad Request$"),
        (http("302 Found", Location="http://127.0.0.1:9/"), "answered 302 Found$"),
        (completion({}), "no chat completion"),
        (completion([]), "no chat completion"),
        (completion({"choices": []}), "no chat completion"),
        (completion({"choices": [7]}), "no chat completion"),
        (completion({"choices": [{"message": None}]}), "no chat completion"),
        (http("200 OK", b"<html>hello</html>", Content_Type="text/html"), "no chat completion"),
        (http("200 OK", b"{", Content_Type="application/json"), "not JSON|gave no answer"),
        (http("200 OK", b"x" * 1_100_000, Content_Type="application/json"), "without end"),
        (http("200 OK", b"x" * (MAX_ANSWER + 1), Content_Type="application/json"), "without end"),
    ],
)
async def test_what_is_no_answer_says_so_without_what_was_said(answer: bytes, reason: str) -> None:
    """Neither the key, nor what the endpoint wrote, nor the chat; and it is not asked again."""
    async with open_model(answer, answer, answer) as model, open_generator(model, retries=0) as generator:
        with pytest.raises(GenerationError, match=reason) as failed:
            await generator.generate(HELLO)
        assert len(model.peer.requests) == 1
    assert not any(secret in str(failed.value) for secret in (KEY, "hello", "bad key"))


async def test_what_may_pass_is_tried_again() -> None:
    """As often as is allowed; where the endpoint says how long to wait, it is waited for."""
    busy = http("429 Too Many Requests", b"{}", Retry_After_Ms="10")
    broken = http("503 Service Unavailable", b"", Retry_After_Ms="10")
    async with open_model(busy, broken) as model, open_generator(model) as generator:
        assert (await generator.generate(HELLO)).text == "I see."
        assert len(model.peer.requests) == 3
    async with open_model(busy, broken) as model, open_generator(model, retries=1) as generator:
        with pytest.raises(GenerationError, match="503"):
            await generator.generate(HELLO)


async def test_silence_is_a_failure_after_the_time_limit() -> None:
    """So is a connection that is refused."""
    async with open_model(None) as model, open_generator(model, timeout=0.05, retries=0) as generator:
        with pytest.raises(GenerationError, match="APITimeoutError"):
            await generator.generate(HELLO)
    async with open_generator(model, retries=0) as generator:
        with pytest.raises(GenerationError, match="APIConnectionError"):
            await generator.generate(HELLO)


async def test_canceled_request_is_ended() -> None:
    """Whoever waits no longer hangs up; the next one is answered."""
    async with open_model(None) as model, open_generator(model) as generator:
        with trio.move_on_after(0.05) as scope:
            await generator.generate(HELLO)
        assert scope.cancelled_caught
        await eventually(lambda: model.peer.open_requests == 0)
        assert (await generator.generate(HELLO)).text == "I see."


async def test_no_more_requests_at_a_time_than_are_allowed() -> None:
    """The others wait for their turn, which comes when somebody has been answered, or waits no longer."""
    async with open_model(None, None) as model, open_generator(model, concurrency=2) as generator:
        async with trio.open_nursery() as others, trio.open_nursery() as first:
            for _ in range(2):
                first.start_soon(generator.generate, HELLO)
            await eventually(lambda: model.peer.open_requests == 2)
            for _ in range(6):
                others.start_soon(generator.generate, HELLO)
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert len(model.peer.requests) == 2
            first.cancel_scope.cancel()
        assert len(model.peer.requests) == 8


async def test_tokens_and_time_are_counted() -> None:
    """As far as the endpoint tells; failures too."""
    metrics = PrometheusMetrics(())
    usage: dict[str, Any] = {"prompt_tokens": 11, "completion_tokens": 7}
    nonsense: dict[str, Any] = {"prompt_tokens": "many", "completion_tokens": -1}
    answers = (said("a", usage=usage), said("b", usage=nonsense), http("400 Bad Request"))
    async with open_model(*answers) as model, open_generator(model, metrics) as generator:
        await generator.generate(HELLO)
        await generator.generate(HELLO)
        with pytest.raises(GenerationError):
            await generator.generate(HELLO)
    values = scraped(metrics.page(Observation(), ready=True))
    assert (values["generation_tokens_total{read}"], values["generation_tokens_total{written}"]) == (11, 7)
    assert (values["generation_seconds_count{answered}"], values["generation_seconds_count{failed}"]) == (2, 1)


def test_key_is_not_shown() -> None:
    """Whoever prints the configuration sees no secret."""
    config = GenAiConfig(api_key=KEY, base_url="http://x/v1", model="parrot")
    assert KEY not in repr(config)
    assert json.dumps(repr(config)).count("parrot") == 1
