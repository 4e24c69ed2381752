"""What Meta's error codes mean for a message. The code decides, never the title or the HTTP status.

`error_codes.json` lists the codes with their meaning and the HTTP status seen with them. It was compiled from
Meta's error reference (developers.facebook.com, "Cloud API error codes", read in September 2026); facts, no
licensed text.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from importlib.resources import files
from typing import TYPE_CHECKING

from promptpipe.model.messages import SendResult, Verdict
from promptpipe.model.text import as_text, shortened

if TYPE_CHECKING:
    from collections.abc import Mapping

HOUR = 3600.0

_VERDICTS: Mapping[Verdict, tuple[range | int, ...]] = {
    Verdict.SLOW_CHANNEL: (2, 4, 80007, 130429, 131016, 131057),
    Verdict.SLOW_RECIPIENT: (131056,),
    Verdict.RETRY: (1, 131000, 131053),
    Verdict.LATER: (131048, 131049, 131064, 132069),
    Verdict.PAUSE_CHANNEL: (
        0,
        3,
        10,
        33,
        190,
        range(200, 300),
        368,
        131005,
        131031,
        131037,
        131042,
        131045,
        133010,
    ),
}
_LATER_DELAYS = {131048: 4 * HOUR, 131064: 4 * HOUR, 131049: 24 * HOUR, 132069: HOUR}


def verdict_of(code: int) -> Verdict:
    """Return what an error code means for the message; codes that nobody knows are refusals for good."""
    for verdict, codes in _VERDICTS.items():
        if any(code in item if isinstance(item, range) else code == item for item in codes):
            return verdict
    return Verdict.REFUSED


def refusal(http_status: int, body: object) -> SendResult:
    """Return what an unsuccessful answer means.

    Without an error object of Meta's, a 5xx leaves the outcome unknown: the request may have been acted upon.
    """
    error = body.get("error") if isinstance(body, dict) else None
    code = error.get("code") if isinstance(error, dict) else None
    if isinstance(error, dict) and isinstance(code, int):
        verdict = verdict_of(code)
        if http_status == HTTPStatus.TOO_MANY_REQUESTS and verdict is Verdict.REFUSED:
            verdict = Verdict.SLOW_CHANNEL
        return SendResult(verdict=verdict, error=describe(error), delay=_LATER_DELAYS.get(code))
    text = f"HTTP {http_status} without an error object"
    if http_status == HTTPStatus.TOO_MANY_REQUESTS:
        return SendResult(verdict=Verdict.SLOW_CHANNEL, error=text)
    if http_status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return SendResult(verdict=Verdict.DOUBTFUL, error=text)
    # Not Meta's own words: a proxy, or a wrong address. It was not accepted; an operator may mend it meanwhile.
    return SendResult(verdict=Verdict.RETRY, error=text)


def describe(error: Mapping[str, object]) -> str:
    """Return an error object of Meta's in one line."""
    data = error.get("error_data")
    details = as_text(data, "details") if isinstance(data, dict) else None
    text = details or as_text(error, "message") or as_text(error, "title") or "no description"
    return shortened(f"{error.get('code')}: {text}", 500)


def known_codes() -> list[dict[str, object]]:
    """Return the table of codes, as documented by Meta."""
    table: list[dict[str, object]] = json.loads(files(__package__).joinpath("error_codes.json").read_text("utf-8"))
    return table
