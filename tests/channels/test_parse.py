"""Meta's webhooks: every shape becomes an update, none is an error."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptpipe.channels.whatsapp.parse import parse
from promptpipe.model.errors import MalformedBodyError
from promptpipe.model.inbound import InboundMessage, InboundOther, InboundStatus
from promptpipe.model.messages import MessageStatus
from promptpipe.model.participants import Address, AddressKind

SAMPLES = Path(__file__).parents[1] / "data" / "whatsapp"
NUMBER_ID = "106540352242922"

ALL_SAMPLES = sorted(
    path for folder in ("meta_docs", "meta_docs_bsuid", "meta_openapi") for path in (SAMPLES / folder).glob("*.json")
)


def updates(body: object, number_id: str = NUMBER_ID) -> list[Any]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return list(parse(raw, number_id).updates)


def sample(name: str) -> Any:
    """Return the only update in a sample."""
    [update] = updates((SAMPLES / name).read_bytes())
    return update


def webhook(*, messages: object = (), statuses: object = (), **value: object) -> dict[str, Any]:
    metadata = {"display_phone_number": "15550783881", "phone_number_id": NUMBER_ID}
    content = {"messaging_product": "whatsapp", "metadata": metadata, "messages": messages, "statuses": statuses}
    change = {"field": "messages", "value": content | value}
    return {"object": "whatsapp_business_account", "entry": [{"id": "1", "changes": [change]}]}


def message(**fields: object) -> dict[str, object]:
    return {"from": "16505551234", "id": "wamid.1", "timestamp": "1749416383", "type": "text", **fields}


@pytest.mark.parametrize("path", ALL_SAMPLES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_sample_is_understood(path: Path) -> None:
    """Each brings one update, its raw form complete."""
    [update] = updates(path.read_bytes())
    assert json.loads(update.raw)
    if ("group_" in path.name and "text" not in path.name) or "errors_" in path.name:
        assert isinstance(update, InboundOther)
    elif "status_" in path.name:
        assert isinstance(update, InboundStatus)
    else:
        assert isinstance(update, InboundMessage)
        assert update.text


TEXTS = {
    "meta_docs/text.json": ("text", "Does it come in another color?", True),
    "meta_docs/image.json": ("image", "[image] Taj Mahal", True),
    "meta_docs/document.json": ("document", "[document] my receipt, receipt.pdf", True),
    "meta_docs/interactive_button_reply.json": ("interactive", "Cancel", True),
    "meta_docs/interactive_list_reply.json": ("interactive", "Priority Mail Express", True),
    "meta_docs/group_text.json": ("text", "What does everyone think about this?", False),
    "meta_docs/edit.json": ("edit", "[edit]", False),
    "meta_docs/revoke.json": ("revoke", "[revoke]", False),
    "meta_docs/unsupported.json": ("unsupported", "[unsupported]", False),
    "meta_docs/system_user_changed_number.json": (
        "system",
        "[system] User Sheena Nelson changed from 16505551234 to 12195555358",
        False,
    ),
    "meta_openapi/button_message.json": ("button", "Unsubscribe", True),
    "meta_openapi/contact_sharing_message.json": ("contacts", "[contacts] Lucía Gómez", True),
    "meta_openapi/location_message.json": (
        "location",
        "[location] Philz Coffee, 101 Forest Ave, Palo Alto, CA 94301, 37.44221496582, -122.16165924072",
        True,
    ),
    "meta_openapi/order_message.json": ("order", "[order]", True),
    "meta_openapi/reaction_message.json": ("reaction", "[reaction] 👍", False),
}


@pytest.mark.parametrize("name", TEXTS)
def test_every_type_has_a_readable_text(name: str) -> None:
    """What a person would read, whatever was sent; and whether it asks for an answer."""
    update = sample(name)
    assert (update.type, update.text, update.conversational) == TEXTS[name]


def test_choices_carry_their_id() -> None:
    """Buttons and list rows are told apart by id, a template's button by its payload."""
    assert sample("meta_docs/interactive_button_reply.json").choice_id == "cancel-button"
    assert sample("meta_docs/interactive_list_reply.json").choice_id == "priority_express"
    assert sample("meta_openapi/button_message.json").choice_id == "Unsubscribe"


def test_sender_is_known_by_phone_by_user_id_or_by_both() -> None:
    """Since 2026 the phone can be absent."""
    phone = Address("whatsapp", AddressKind.PHONE, "+16505551234")
    user_id = Address("whatsapp", AddressKind.USER_ID, "US.13491208655302741918")
    assert sample("meta_docs/text.json").senders == (phone,)
    assert sample("meta_docs_bsuid/text_no_phone.json").senders == (user_id,)
    both = webhook(
        messages=[message(text={"body": "hi"})],
        contacts=[{"wa_id": "16505551234", "user_id": user_id.value, "profile": {"name": "Ada"}}],
    )
    [update] = updates(both)
    assert (update.senders, update.sender_name) == ((phone, user_id), "Ada")


def test_choice_of_odd_characters_can_be_stored() -> None:
    """Whatever a button's id is made of."""
    interactive = {"type": "button_reply", "button_reply": {"id": "a\ud800", "title": "b"}}
    [update] = updates(webhook(messages=[message(type="interactive", interactive=interactive)]))
    assert update.choice_id == "a\N{REPLACEMENT CHARACTER}"


def test_contact_of_another_sender_names_nobody() -> None:
    """With several contacts, each message has its own."""
    contacts = [{"wa_id": n, "profile": {"name": name}} for n, name in (("15550001111", "Bob"), ("16505551234", "Ada"))]
    [update] = updates(webhook(messages=[message(text={"body": "hi"})], contacts=contacts))
    assert update.sender_name == "Ada"


def test_status_names_our_message_by_the_callback_data() -> None:
    """What we put into the request comes back."""
    status = {"id": "wamid.2", "status": "delivered", "timestamp": "1750030073", "biz_opaque_callback_data": "abc:12"}
    [update] = updates(webhook(statuses=[status]))
    assert (update.status, update.reference) == (MessageStatus.DELIVERED, ("abc", 12))
    assert update.provider_time == datetime.fromtimestamp(1750030073, UTC)


@pytest.mark.parametrize("data", [None, "", "abc", "abc:", ":1", "abc:x", "abc:-1", "abc:²", "abc:" + "9" * 30, 7, {}])
def test_callback_data_that_is_not_ours_names_nothing(data: object) -> None:
    """Other systems may send by the same number."""
    status = {"id": "wamid.2", "status": "sent", "biz_opaque_callback_data": data}
    [update] = updates(webhook(statuses=[status]))
    assert update.reference is None


def test_failed_status_says_why_without_contacts() -> None:
    """The error's code and details, though `contacts` is missing."""
    update = sample("meta_docs_bsuid/status_failed_no_contacts.json")
    assert update.status is MessageStatus.FAILED
    assert update.error.startswith("131049: In order to maintain a healthy ecosystem engagement")


@pytest.mark.parametrize(
    ("timestamp", "expected"),
    [
        ("1749416383", datetime(2025, 6, 8, 20, 59, 43, tzinfo=UTC)),
        ("1749416383000", datetime(2025, 6, 8, 20, 59, 43, tzinfo=UTC)),
        (1749416383, datetime(2025, 6, 8, 20, 59, 43, tzinfo=UTC)),
        ("yesterday", None),
        ("", None),
        ("-1", None),
        ("9" * 15, None),
        (None, None),
        ([], None),
    ],
)
def test_timestamps_are_seconds_or_milliseconds_or_nothing(timestamp: object, expected: datetime | None) -> None:
    """Milliseconds have been seen; nonsense is no time."""
    [update] = updates(webhook(messages=[message(timestamp=timestamp, text={"body": "hi"})]))
    assert update.provider_time == expected


def test_several_changes_and_kinds_come_in_order() -> None:
    """One request may bring messages and statuses of several changes."""
    body = webhook(messages=[message(id="a"), message(id="b")], statuses=[{"id": "c", "status": "sent"}])
    body["entry"] += webhook(messages=[message(id="d")])["entry"]
    assert [update.provider_id for update in updates(body)] == ["a", "b", "c", "d"]


def test_other_numbers_are_counted_and_left_alone() -> None:
    """An app may serve several numbers; one that is not ours is not our business."""
    body = json.dumps(webhook(messages=[message()])).encode()
    parsed = parse(body, "another number")
    assert (parsed.updates, parsed.foreign) == ((), 1)


def test_nul_and_lone_surrogates_are_replaced_in_text_and_kept_in_raw() -> None:
    """Text can be stored anywhere; the raw update says what really came."""
    body = b'{"entry":[{"changes":[{"field":"messages","value":{"metadata":{"phone_number_id":"106540352242922"},'
    body += (
        b'"messages":[{"id":"wamid.1","type":"text","from":"16505551234","text":{"body":"a\\u0000b\\ud800c"}}]}}]}]}'
    )
    [update] = updates(body)
    assert update.text == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}c"
    assert b"a\\u0000b\\ud800c" in update.raw


@pytest.mark.parametrize(
    "odd",
    [
        {},
        {"entry": []},
        {"entry": [{}]},
        {"entry": [None, 7, "x"]},
        {"entry": [{"changes": [{"field": "messages"}]}]},
        {"entry": [{"changes": [{"field": "account_update", "value": {"event": "DISABLED"}}]}]},
        {"entry": [{"changes": [{"value": None}]}]},
        webhook(messages=[None, 7, {"id": 5}, {"type": "text"}, {"id": "x", "type": ""}]),
        webhook(statuses=[{"id": "x", "status": "frobbed"}, {"status": "sent"}, []]),
        webhook(messages="none", statuses=7),
    ],
)
def test_unknown_shapes_are_kept_raw(odd: dict[str, object]) -> None:
    """Not an error, and not lost."""
    found = updates(odd)
    assert found
    assert all(isinstance(update, InboundOther) and update.raw for update in found)


def test_one_bad_update_among_good_ones_costs_them_nothing() -> None:
    """The good are messages, the bad are kept raw, in order."""
    body = webhook(messages=[message(id="a"), {"id": ["no"]}, message(id="b")])
    assert [type(update) for update in updates(body)] == [InboundMessage, InboundOther, InboundMessage]


@pytest.mark.parametrize(
    "body",
    [b"", b"nonsense", b"[]", b"7", b"null", b'"x"', b"{", b'{"a":NaN}', b"\xff\xfe", b"[" * 100_000, b"9" * 5000],
)
def test_what_is_not_a_json_object_is_refused(body: bytes) -> None:
    """The provider is told so."""
    with pytest.raises(MalformedBodyError):
        parse(body, NUMBER_ID)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@st.composite
def mangled_samples(draw: st.DrawFn) -> object:
    """Give a real webhook with some of its parts replaced by anything."""
    body = json.loads(draw(st.sampled_from(ALL_SAMPLES)).read_bytes())

    def mangle(value: object, depth: int = 0) -> object:
        if depth > 1 and draw(st.integers(0, 15)) == 0:
            return draw(json_values)
        if isinstance(value, dict):
            return {key: mangle(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list):
            return [mangle(item, depth + 1) for item in value]
        return value

    return mangle(body)


@given(body=mangled_samples())
def test_nothing_signed_by_meta_breaks_the_parser(body: object) -> None:
    """Whatever stands where: an update, its number's id, and text that can be stored."""
    parsed = parse(json.dumps(body).encode(), NUMBER_ID)
    assert parsed.updates or parsed.foreign
    for update in parsed.updates:
        json.loads(update.raw)
        if isinstance(update, InboundMessage):
            update.text.encode()
            assert "\x00" not in update.text + update.type + (update.sender_name or "") + update.provider_id


@given(body=st.dictionaries(st.text(max_size=8), json_values))
def test_any_json_object_is_kept(body: dict[str, object]) -> None:
    """An object nobody has ever seen is stored, not refused."""
    assert parse(json.dumps(body).encode(), NUMBER_ID).updates
