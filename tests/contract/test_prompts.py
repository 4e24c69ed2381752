"""Prompts that are sent now, the replies to them, and operators' orders."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
import trio

from promptpipe.model.decisions import Hook
from promptpipe.model.errors import (
    AlreadyExistsError,
    InvalidArgumentError,
    NotFoundError,
    PreconditionError,
    StillWaitingError,
)
from promptpipe.model.events import FlowMoved, PromptOrdered
from promptpipe.model.ids import MessageId, ParticipantId
from promptpipe.model.messages import MessageStatus, Text
from promptpipe.model.orders import OrderStatus, Standing
from promptpipe.model.participants import ParticipantStatus
from promptpipe.model.prompts import (
    BranchPrompt,
    ConversationPrompt,
    CustomPrompt,
    GenAiPrompt,
    Option,
    Prompt,
    StaticPrompt,
    prompt_payload,
)
from promptpipe.services.flows import Flows
from promptpipe.services.orders import carried_out
from promptpipe.services.prompts import PromptRules, Prompts
from tests.support.echo import EchoFlow
from tests.support.people import ADA, BOB, ENROLLMENT, batch, enroll, inbound
from tests.support.people import message as new_message
from tests.support.prompting import NotingFlow, ScriptedModel, Weather
from tests.support.work import Working

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from promptpipe.model.messages import OutboxMessage
    from tests.support.database import Database

BRANCH = BranchPrompt(
    "How are you?", (Option("Well", "Good to hear."), Option("So so", "Take it easy."), Option("Badly", "I am sorry."))
)
GENAI = GenAiPrompt("You are a gardener.", "Say something about roses.")


class Operator:
    """Somebody who asks for things, and a service that does them meanwhile."""

    def __init__(self, db: Database, working: Working) -> None:
        self.db = db
        self.working = working
        self.rules = PromptRules({"weather"}, has_model=True)
        self.prompts = Prompts(db.store.orders, db.store.outbox, self.rules, db.new_id)
        self.flows = Flows(working.registry, db.store.orders, db.store.participants)

    async def send(self, person: ParticipantId, prompt: Prompt, key: str | None = None) -> tuple[OutboxMessage, bool]:
        return await self.prompts.send(person, prompt, key)


@asynccontextmanager
async def at_work(db: Database, working: Working) -> AsyncIterator[Operator]:
    """Have all events handled as they come."""

    async def work() -> None:
        while True:
            await working.handle_events()
            await trio.sleep(0.001)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(work)
        yield Operator(db, working)
        nursery.cancel_scope.cancel()


async def hear(db: Database, working: Working, text: str, **other: object) -> list[str]:
    """Let Ada reply, and return what is said to her then."""
    await working.everything()
    await db.store.inbound.ingest(batch(inbound(text, **other)), ENROLLMENT)  # type: ignore[arg-type]
    return await working.everything()


async def heard(db: Database, person: ParticipantId) -> object:
    return (await db.store.participants.flow_state(person, "echo")).data.get("heard", [])


async def test_prompt_is_sent_now(db: Database) -> None:
    """In its turn, after what was in the mailbox before."""
    person, working = await enroll(db), Working(db, [NotingFlow()])
    await db.store.inbound.ingest(batch(inbound("hello")), ENROLLMENT)
    async with at_work(db, working) as operator:
        message, created = await operator.send(person, StaticPrompt("stretch"))
    assert (created, message.status) == (True, MessageStatus.QUEUED)
    assert await heard(db, person) == ["echo: hello", "prompted: stretch"]
    assert await working.everything() == ["echo: hello", "stretch"]


async def test_flow_says_what_it_has_to_say(db: Database) -> None:
    """A flow without prompts of its own has nothing, and whoever asks is told."""
    person = await enroll(db)
    async with at_work(db, Working(db, [NotingFlow()])) as operator:
        message, _ = await operator.send(person, ConversationPrompt())
    assert (message.content, message.flow_type) == (Text("a prompt of my own"), "echo")
    async with at_work(db, Working(db, [EchoFlow()])) as operator:
        with pytest.raises(PreconditionError, match="no flow that has prompts"):
            await operator.send(person, ConversationPrompt())
        message, _ = await operator.send(person, StaticPrompt("stretch"))
    assert message.flow_type is None


async def test_prompt_with_a_key_is_sent_once(db: Database) -> None:
    """While the first waits, and after it was sent; whoever asks gets its message."""
    ada, bob = await enroll(db), await enroll(db, BOB)
    working = Working(db, [NotingFlow()])
    orders_ = [
        PromptOrdered(message_id=MessageId(db.new_id()), prompt=prompt_payload(StaticPrompt("hi")), dedupe_key="k")
        for _ in range(3)
    ]
    first = await db.store.orders.prompt(ada, orders_[0])
    assert first[1] == orders_[0].message_id
    assert await db.store.orders.prompt(ada, orders_[1]) == first
    assert await db.store.orders.prompt(bob, orders_[2]) == first
    async with at_work(db, working) as operator:
        message, created = await operator.send(ada, StaticPrompt("other"), "k")
        assert (message.id, created) == (first[1], False)
        message, created = await operator.send(bob, StaticPrompt("other"), "k")
        assert (message.id, created) == (first[1], False)
    assert await working.everything() == ["hi"]
    db.clock.advance(31 * 86_400)
    async with at_work(db, working) as operator:
        _, created = await operator.send(ada, StaticPrompt("again"), "k")
    assert created
    assert await working.everything() == ["again"]


async def test_key_that_another_message_has_got_meanwhile_sends_nothing(db: Database) -> None:
    """The event is handled nevertheless."""
    person, working = await enroll(db), Working(db, [NotingFlow()])
    order = PromptOrdered(message_id=MessageId(db.new_id()), prompt=prompt_payload(StaticPrompt("hi")), dedupe_key="k")
    event_id, message_id = await db.store.orders.prompt(person, order)
    taken, _ = await db.store.outbox.enqueue(new_message(db, person, "taken", dedupe_key="k"))
    assert await working.everything() == ["taken"]
    with pytest.raises(NotFoundError):
        await db.store.outbox.get(message_id)
    assert event_id is not None
    assert taken.id != message_id


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ({"text": "So so", "choice": 2}, "Take it easy."),
        ({"text": "2"}, "Take it easy."),
        ({"text": " 3. "}, "I am sorry."),
        ({"text": "wELL"}, "Good to hear."),
    ],
)
async def test_choice_is_answered_once(db: Database, reply: dict[str, object], answer: str) -> None:
    """By button or list, number or label, whatever was restarted meanwhile; the flow takes note."""
    person = await enroll(db)
    async with at_work(db, Working(db, [NotingFlow()])) as operator:
        message, _ = await operator.send(person, BRANCH)
    await db.restart()
    working = Working(db, [NotingFlow()])
    assert await working.everything() == ["How are you?\n1. Well\n2. So so\n3. Badly"]
    choice = reply.pop("choice", None)
    other = {} if choice is None else {"choice_id": f"{message.id}:{choice}"}
    text = str(reply["text"])
    assert await hear(db, working, text, **other) == [answer]
    assert (await heard(db, person))[-1] == f"answered: {text} -> {answer}"  # type: ignore[index]
    assert await hear(db, working, text, **other) == [f"echo: {text}"]


async def test_what_is_no_choice_goes_to_the_flow(db: Database) -> None:
    """And the question waits on, for a week, or until another takes its place."""
    person, working = await enroll(db), Working(db, [NotingFlow()])
    async with at_work(db, working) as operator:
        old, _ = await operator.send(person, BRANCH)
        await operator.send(person, BranchPrompt("Tea?", (Option("Yes", "Here."), Option("No", "Fine."))))
    assert await hear(db, working, "what?") == ["echo: what?"]
    assert await hear(db, working, "3") == ["echo: 3"]
    assert await hear(db, working, "Well", choice_id=f"{old.id}:1") == ["echo: Well"]
    assert await hear(db, working, "yes", conversational=False) == ["echo: yes"]
    assert await hear(db, working, "yes") == ["Here."]
    async with at_work(db, working) as operator:
        await operator.send(person, BRANCH)
    db.clock.advance(7 * 86_400)
    assert await hear(db, working, "1") == ["echo: 1"]


async def test_model_writes_the_prompt_and_answers_the_first_reply(db: Database) -> None:
    """It knows what it was told and what it wrote, whatever was restarted meanwhile."""
    person = await enroll(db)
    model = ScriptedModel("Roses like clay.", "And sun.")
    async with at_work(db, Working(db, [NotingFlow()], generator=model)) as operator:
        await operator.send(person, GENAI)
    await db.restart()
    working = Working(db, [NotingFlow()], generator=model)
    assert await working.everything() == ["Roses like clay."]
    assert await hear(db, working, "What else?") == ["And sun."]
    said = [(message.role.value, message.content) for message in model.asked[1]]
    assert said == [
        ("system", "You are a gardener."),
        ("user", "Say something about roses."),
        ("assistant", "Roses like clay."),
        ("user", "What else?"),
    ]
    assert await hear(db, working, "Thanks") == ["echo: Thanks"]


async def test_flow_answers_what_the_model_cannot(db: Database) -> None:
    """A model that is not there leaves nobody without an answer."""
    person = await enroll(db)
    model = ScriptedModel("Roses like clay.", None, "  ")
    working = Working(db, [NotingFlow()], generator=model)
    async with at_work(db, working) as operator:
        await operator.send(person, GENAI)
    assert await hear(db, working, "What else?") == ["echo: What else?"]
    assert await hear(db, working, "Hello?") == ["echo: Hello?"]
    assert await hear(db, working, "(a picture)", type="image") == ["echo: (a picture)"]
    assert len(model.asked) == 3
    without = Working(db, [NotingFlow()])
    assert await hear(db, without, "Still?") == ["echo: Still?"]


async def test_registered_generator_makes_the_prompt(db: Database) -> None:
    """Of the parameters; what it cannot make anything of it says."""
    person, working = await enroll(db), Working(db, [NotingFlow()], custom=[Weather()])
    async with at_work(db, working) as operator:
        await operator.send(person, CustomPrompt("weather", {"place": "Toronto"}))
        with pytest.raises(PreconditionError, match="place is missing"):
            await operator.send(person, CustomPrompt("weather"))
    assert await working.everything() == ["You: sun in Toronto"]
    async with at_work(db, Working(db, [NotingFlow()])) as operator:
        with pytest.raises(PreconditionError, match="no prompt generator is called weather"):
            await operator.send(person, CustomPrompt("weather"))
        with pytest.raises(PreconditionError, match="no language model is configured"):
            await operator.send(person, GENAI)


async def test_whom_nobody_prompts(db: Database) -> None:
    """Somebody paused, and somebody who never was there."""
    person, working = await enroll(db), Working(db, [NotingFlow()])
    await db.store.participants.update(person, {}, ParticipantStatus.PAUSED)
    async with at_work(db, working) as operator:
        with pytest.raises(PreconditionError, match="the participant is paused"):
            await operator.send(person, StaticPrompt("stretch"))
        with pytest.raises(PreconditionError, match="the participant is paused"):
            await operator.flows.move(person, "echo", "THERE", "")
        with pytest.raises(NotFoundError):
            await operator.send(ParticipantId("nobody"), StaticPrompt("stretch"))
    assert await working.everything() == []


@pytest.mark.parametrize(
    ("prompt", "field"),
    [
        (StaticPrompt(""), "prompt.static.body"),
        (StaticPrompt("x" * 4097), "prompt.static.body"),
        (GenAiPrompt("x", " "), "prompt.genai.user_prompt"),
        (GenAiPrompt("x" * 10_001, "x"), "prompt.genai.system_prompt"),
        (BranchPrompt("", BRANCH.options), "prompt.branch.body"),
        (BranchPrompt("?", BRANCH.options[:1]), "prompt.branch.options"),
        (BranchPrompt("?", tuple(Option(f"{n}.", "x") for n in range(11))), "prompt.branch.options"),
        (BranchPrompt("?", (Option("a" * 101, "x"), Option("b", "x"))), "prompt.branch.options[0].label"),
        (BranchPrompt("?", (Option("a", "x"), Option("", "x"))), "prompt.branch.options[1].label"),
        (BranchPrompt("?", (Option("a", "x"), Option("A ", "x"))), "prompt.branch.options[1].label"),
        (BranchPrompt("?", (Option("a", "x" * 1001), Option("b", "x"))), "prompt.branch.options[0].body"),
        (CustomPrompt("unheard of"), "prompt.custom.generator"),
    ],
)
def test_what_prompts_must_be(prompt: Prompt, field: str) -> None:
    """The error names the field."""
    with pytest.raises(InvalidArgumentError) as refused:
        PromptRules({"weather"}, has_model=True).check(prompt)
    assert refused.value.field == field
    with pytest.raises(PreconditionError, match="PROMPTPIPE_GENAI__API_KEY"):
        PromptRules((), has_model=False).check(GENAI)


async def test_operator_moves_a_conversation(db: Database) -> None:
    """The place after it is the answer; what the flow refuses changes nothing, and its reason is the answer."""
    person, working = await enroll(db), Working(db, [NotingFlow()])
    async with at_work(db, working) as operator:
        moved = await operator.flows.move(person, "echo", "THERE", "because")
        assert (moved.current_state, moved.data["heard"]) == ("THERE", ["moved to THERE"])
        with pytest.raises(PreconditionError, match="there is no state NOWHERE"):
            await operator.flows.move(person, "echo", "NOWHERE", "")
        assert (await operator.flows.state(person, "echo")).version == moved.version
        assert (await operator.flows.reset(person, "echo")).current_state == "ACTIVE"
        told = await operator.flows.signal(person, "echo", "paid", {"amount": 3})
        assert told.data["heard"] == ["moved to THERE", "reset", "signal"]
        with pytest.raises(NotFoundError):
            await operator.flows.reset(person, "unheard of")


async def test_operator_starts_a_flow(db: Database) -> None:
    """It begins as if the person were enrolled into it; they are in it once."""

    class Second(NotingFlow):
        flow_type = handler_type = "second"
        job_kinds = frozenset[str]()

    person, working = await enroll(db), Working(db, [NotingFlow(), Second()])
    async with at_work(db, working) as operator:
        started = await operator.flows.start(person, "second")
        assert (started.flow_type, started.current_state) == ("second", "ACTIVE")
        with pytest.raises(AlreadyExistsError):
            await operator.flows.start(person, "second")
        with pytest.raises(InvalidArgumentError):
            await operator.flows.start(person, "unheard of")
        with pytest.raises(NotFoundError):
            await operator.flows.start(ParticipantId("nobody"), "second")
    assert await working.everything() == ["enrolled"]


async def test_where_an_order_stands(db: Database) -> None:
    """It waits, is done or refused; set aside, the reason is there until the operator retries or drops it."""
    person, store = await enroll(db), db.store
    order = PromptOrdered(message_id=MessageId(db.new_id()), prompt={"prompt": "of tomorrow"})
    event_id = await store.orders.place(person, order)
    assert await store.orders.status(event_id) == OrderStatus(Standing.WAITING)
    [delivery] = (await store.mailboxes.claim(db.claim())).items
    assert await store.orders.status(event_id) == OrderStatus(Standing.WAITING)
    await store.mailboxes.retry(delivery.lease, event_id, error="boom", delay=1.0, blocked=130.0, limit=120.0)
    assert await store.orders.status(event_id) == OrderStatus(Standing.ASIDE, "boom")
    with pytest.raises(PreconditionError, match="set aside: boom"):
        await carried_out(store.orders, event_id)
    await store.aside.drop(event_id)
    assert await store.orders.status(event_id) == OrderStatus(Standing.DONE)


async def test_reasons_of_refusals_are_forgotten(db: Database) -> None:
    """After an hour nobody waits to hear them."""
    person, working = await enroll(db), Working(db, [EchoFlow()])
    await db.store.orders.place(
        person, PromptOrdered(message_id=MessageId("m"), prompt=prompt_payload(ConversationPrompt()))
    )
    await working.everything()
    hour = timedelta(hours=1)
    assert await db.store.maintenance.prune_refusals(hour, None) is None
    db.clock.advance(3601)
    assert await db.store.maintenance.prune_refusals(hour, None) is not None
    assert db.rows("SELECT count(*) FROM refusals") == [(0,)]


async def test_whoever_waits_too_long_is_told(db: Database) -> None:
    """The order stays, and is carried out in its time."""
    person, working = await enroll(db), Working(db, [NotingFlow()])
    event_id = await db.store.orders.place(person, FlowMoved(flow_type="echo", target_state="THERE", reason=""))
    with pytest.raises(StillWaitingError, match="it will be"):
        await carried_out(db.store.orders, event_id, patience=0.02)
    await working.everything()
    await carried_out(db.store.orders, event_id)
    assert (await db.store.participants.flow_state(person, "echo")).current_state == "THERE"


async def test_hook_of_a_decision_is_kept(db: Database) -> None:
    """In place of one of its type, with what it needs to know."""
    person = await enroll(db)
    async with at_work(db, Working(db, [NotingFlow()])) as operator:
        await operator.send(person, BRANCH)
    await db.store.inbound.ingest(batch(inbound("hello", ADA)), ENROLLMENT)
    [delivery] = (await db.store.mailboxes.claim(db.claim())).items
    first, last = delivery.hooks
    assert (first.handler_type, first.data["body"]) == ("branch", "How are you?")
    assert last == Hook(participant_id=person, handler_type="echo", flow_type="echo")
