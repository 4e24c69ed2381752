"""The Cloud API client: what goes out, and what every kind of answer means for the message."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trio

from promptpipe.channels.whatsapp import WhatsAppChannel, WhatsAppConfig
from promptpipe.channels.whatsapp.errors import known_codes, refusal, verdict_of
from promptpipe.channels.whatsapp.signature import is_signed, sign
from promptpipe.model.errors import SignatureError, VerificationError
from promptpipe.model.ids import MessageId, ParticipantId
from promptpipe.model.leases import Lease, Work
from promptpipe.model.messages import (
    Departure,
    MessageClass,
    MessageStatus,
    OutboxMessage,
    SendOrder,
    SendResult,
    Text,
    Verdict,
)
from promptpipe.model.participants import Address, AddressKind
from tests.support.peer import Peer, http, open_peer
from tests.support.service import free_port

DATA = Path(__file__).parents[1] / "data" / "whatsapp"
PHONE = Address("whatsapp", AddressKind.PHONE, "+16505551234")
ACCEPTED = http("200 OK", b'{"messaging_product":"whatsapp","messages":[{"id":"wamid.out"}]}')


def config(url: str, *, send_timeout: float = 5.0) -> WhatsAppConfig:
    return WhatsAppConfig(
        api_url=f"{url}/v24.0",
        phone_number_id="106540352242922",
        access_token="the-access-token",
        app_secret="the-app-secret",
        verify_token="the-verify-token",
        send_timeout=send_timeout,
    )


def order(recipient: Address = PHONE, text: str = "Grüße 👋") -> SendOrder:
    message = OutboxMessage(
        id=MessageId("0197-message"),
        participant_id=ParticipantId("p"),
        channel="whatsapp",
        recipient=recipient,
        content=Text(text),
        message_class=MessageClass.REPLY,
        status=MessageStatus.SENDING,
        attempts=3,
        created_at=datetime(2026, 3, 1, tzinfo=UTC),
    )
    return SendOrder(Lease(Work.OUTBOX, "p/whatsapp/reply", 1), message, 3)


async def send(answer: bytes | None, *, send_timeout: float = 5.0, **parts: Any) -> tuple[SendResult, Peer]:
    """Send a message to a peer that answers so."""
    async with (
        open_peer(answer) as peer,
        WhatsAppChannel.opened(config(peer.url, send_timeout=send_timeout)) as channel,
    ):
        departure = Departure()
        result = await channel.send(order(**parts), departure)
        assert departure.left
        return result, peer


async def test_request_is_as_documented_and_carries_our_reference() -> None:
    """The recipient with its plus, the token, and the id that comes back in every status."""
    result, peer = await send(ACCEPTED)
    assert result == SendResult(verdict=Verdict.ACCEPTED, provider_id="wamid.out")
    head, _, body = peer.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v24.0/106540352242922/messages HTTP/1.1\r\n")
    assert b"authorization: bearer the-access-token" in head.lower()
    assert json.loads(body) == {
        "messaging_product": "whatsapp",
        "recipient_type": "individual",
        "to": "+16505551234",
        "type": "text",
        "text": {"body": "Grüße 👋"},
        "biz_opaque_callback_data": "0197-message:3",
    }


async def test_person_known_by_user_id_is_written_to_by_it() -> None:
    """Without a phone number, the recipient is the business-scoped user id."""
    _, peer = await send(ACCEPTED, recipient=Address("whatsapp", AddressKind.USER_ID, "US.134"))
    body = json.loads(peer.requests[0].partition(b"\r\n\r\n")[2])
    assert (body["recipient"], "to" in body) == ("US.134", False)


@pytest.mark.parametrize("path", sorted((DATA / "send" / "response").glob("200__send_*.json")), ids=lambda p: p.stem)
async def test_documented_acceptances_are_acceptances(path: Path) -> None:
    """Every published answer with a message id."""
    body = json.loads(path.read_bytes())
    result, _ = await send(http("200 OK", path.read_bytes()))
    if "messages" in body:
        assert result.verdict is Verdict.ACCEPTED
        assert result.provider_id == body["messages"][0]["id"]


UNKNOWN_OUTCOMES = {
    "hung up without an answer": b"",
    "hung up in the middle of the head": b"HTTP/1.1 200 O",
    "hung up in the middle of the body": b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{",
    "not HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "500 without a body": http("500 Internal Server Error"),
    "502 of a proxy": http("502 Bad Gateway", b"<html>Bad Gateway</html>"),
    "503 with JSON of somebody else": http("503 Service Unavailable", b'{"error":"down"}'),
    "200 without an id": http("200 OK", b'{"messages":[]}'),
    "200 with an id that is none": http("200 OK", b'{"messages":[{"id":7}]}'),
    "200 with an endless id": http("200 OK", b'{"messages":[{"id":"' + b"x" * 5000 + b'"}]}'),
    "200 without JSON": http("200 OK", b"ok"),
    "200 nested too deeply": http("200 OK", b"[" * 50_000),
    "200 with more than we read": http("200 OK", b'{"messages":[{"id":"a"}]}' + b" " * 200_000),
    "200 with a false encoding": http("200 OK", b"not gzip", Content_Encoding="gzip"),
}


@pytest.mark.parametrize("name", UNKNOWN_OUTCOMES)
async def test_unknown_outcome_is_a_doubt(name: str) -> None:
    """It left, and nobody can tell what became of it: neither sent again nor given up."""
    result, _ = await send(UNKNOWN_OUTCOMES[name])
    assert result.verdict is Verdict.DOUBTFUL
    assert result.error


async def test_answer_that_does_not_come_is_a_doubt_in_time() -> None:
    """The time-out bounds the whole request."""
    with trio.fail_after(5.0):
        result, peer = await send(None, send_timeout=0.2)
    assert (result.verdict, len(peer.requests)) == (Verdict.DOUBTFUL, 1)


async def test_answer_that_drips_is_a_doubt_in_time() -> None:
    """A peer that sends a byte now and then does not hold a sender for ever."""

    async def drip(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b" " * 100_000:
            await stream.send_all(bytes([byte]))
            await trio.sleep(0.05)

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, drip, listeners)
        url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        async with WhatsAppChannel.opened(config(url, send_timeout=0.5)) as channel:
            with trio.fail_after(5.0):
                result = await channel.send(order(), Departure())
        assert result.verdict is Verdict.DOUBTFUL
        nursery.cancel_scope.cancel()


async def test_connection_refused_means_that_nothing_left() -> None:
    """The message is as unsent as before."""
    async with WhatsAppChannel.opened(config(f"http://127.0.0.1:{free_port()}")) as channel:
        departure = Departure()
        result = await channel.send(order(), departure)
    assert (result.verdict, departure.left) == (Verdict.UNSENT, False)


async def test_name_that_does_not_resolve_means_that_nothing_left() -> None:
    """A broken name service costs time, no message."""
    async with WhatsAppChannel.opened(config("http://no-such-host.invalid")) as channel:
        result = await channel.send(order(), Departure())
    assert result.verdict is Verdict.UNSENT


async def test_canceled_send_says_whether_it_had_left() -> None:
    """A drain that interrupts a request knows what it interrupted."""
    async with open_peer(None) as peer, WhatsAppChannel.opened(config(peer.url)) as channel:
        departure = Departure()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.send, order(), departure)
            with trio.fail_after(5.0):
                while not peer.requests:
                    await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert departure.left
        with trio.CancelScope() as scope:
            scope.cancel()
            departure = Departure()
            await channel.send(order(), departure)
        assert not departure.left


async def test_redirect_is_not_followed() -> None:
    """A token is sent where it was told to go, nowhere else."""
    async with open_peer(ACCEPTED) as other:
        result, _ = await send(http("307 Temporary Redirect", Location=other.url))
        assert (result.verdict, other.requests) == (Verdict.RETRY, [])


def meta_error(code: int, **more: object) -> bytes:
    return json.dumps({"error": {"message": "m", "type": "OAuthException", "code": code, **more}}).encode()


@pytest.mark.parametrize(
    ("status", "code", "verdict", "delay"),
    [
        ("400 Bad Request", 100, Verdict.REFUSED, None),
        ("400 Bad Request", 131047, Verdict.REFUSED, None),
        ("400 Bad Request", 131026, Verdict.REFUSED, None),
        ("404 Not Found", 132001, Verdict.REFUSED, None),
        ("400 Bad Request", 999999, Verdict.REFUSED, None),
        ("401 Unauthorized", 190, Verdict.PAUSE_CHANNEL, None),
        ("401 Unauthorized", 0, Verdict.PAUSE_CHANNEL, None),
        ("403 Forbidden", 217, Verdict.PAUSE_CHANNEL, None),
        ("400 Bad Request", 130429, Verdict.SLOW_CHANNEL, None),
        ("500 Internal Server Error", 2, Verdict.SLOW_CHANNEL, None),
        ("429 Too Many Requests", 999999, Verdict.SLOW_CHANNEL, None),
        ("400 Bad Request", 131056, Verdict.SLOW_RECIPIENT, None),
        ("500 Internal Server Error", 131000, Verdict.RETRY, None),
        ("400 Bad Request", 131049, Verdict.LATER, 86400.0),
        ("400 Bad Request", 131048, Verdict.LATER, 14400.0),
    ],
)
async def test_code_decides_what_a_refusal_means(status: str, code: int, verdict: Verdict, delay: float | None) -> None:
    """Never the title, hardly ever the HTTP status; even a 500 with Meta's own words is a definite answer."""
    result, _ = await send(http(status, meta_error(code, error_data={"details": "the details"})))
    assert result == SendResult(verdict=verdict, error=f"{code}: the details", delay=delay)


async def test_too_many_requests_without_words_slows_the_channel() -> None:
    """Any HTTP 429."""
    result, _ = await send(http("429 Too Many Requests"))
    assert result.verdict is Verdict.SLOW_CHANNEL


@pytest.mark.parametrize("path", sorted((DATA / "send" / "meta_openapi").glob("*.json")), ids=lambda p: p.stem)
def test_every_published_error_body_is_understood(path: Path) -> None:
    """Each of Meta's own error bodies gets a verdict and a line of text, and none is an unknown outcome."""
    result = refusal(int(path.name[:3]), json.loads(path.read_bytes()))
    assert result.verdict not in {Verdict.ACCEPTED, Verdict.UNSENT, Verdict.DOUBTFUL}
    assert result.error


def test_every_documented_code_has_the_class_that_the_table_suggests() -> None:
    """Our classes and the copied table say the same of retrying."""
    never_again = {Verdict.REFUSED, Verdict.PAUSE_CHANNEL}
    for entry in known_codes():
        code, suggestion = entry["code"], str(entry["class_suggested"])
        verdict = verdict_of(200 if code == "200-299" else int(str(code)))
        retried = suggestion.startswith(("retry", "not before"))
        if entry["group"] != "inbound" and code != 131064:
            assert (verdict not in never_again) == retried, (code, suggestion, verdict)


# ---------------------------------------------------------------- webhook


def test_signature_vectors() -> None:
    """HMAC-SHA256 over the exact bytes."""
    for vector in json.loads((DATA / "meta_hmac_vectors.json").read_bytes())["vectors"]:
        assert sign(vector["app_secret"], vector["body"].encode()) == f"sha256={vector['hex']}"


@pytest.mark.parametrize(
    "header", [None, "", "sha256=", "sha1=abc", "sha256=" + "0" * 64, "SHA256=" + "0" * 64, "ü", "sha256=\x00"]
)
def test_wrong_signatures_are_wrong(header: str | None) -> None:
    """Missing, of another kind, or nonsense."""
    assert not is_signed("secret", b"test", header)


async def test_signature_is_checked_before_anything_is_read() -> None:
    """A body that nobody signed is not even parsed; escapes are signed as they travel."""
    async with WhatsAppChannel.opened(config("http://127.0.0.1:1")) as channel:
        body = b'{"entry":[],"a":"\\u00e4"}'
        with pytest.raises(SignatureError):
            channel.receive({}, body)
        with pytest.raises(SignatureError):
            channel.receive({"x-hub-signature-256": sign("the-app-secret", body)}, b'{"entry":[],"a":"\xc3\xa4"}')
        assert channel.receive({"x-hub-signature-256": sign("the-app-secret", body)}, body).updates


async def test_handshake_answers_the_challenge_to_who_knows_the_token() -> None:
    """Anyone else is refused."""
    async with WhatsAppChannel.opened(config("http://127.0.0.1:1")) as channel:
        good = {"hub.mode": "subscribe", "hub.verify_token": "the-verify-token", "hub.challenge": "1158201444"}
        assert channel.handshake(good) == "1158201444"
        for bad in (
            {},
            good | {"hub.verify_token": "x"},
            good | {"hub.mode": "unsubscribe"},
            {"hub.verify_token": "ü"},
        ):
            with pytest.raises(VerificationError):
                channel.handshake(bad)


def test_secrets_do_not_show() -> None:
    """A configuration that ends up in a log says which number, not which token."""
    shown = repr(config("http://example.invalid"))
    assert "106540352242922" in shown
    assert "the-" not in shown
