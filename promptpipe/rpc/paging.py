"""Page sizes and page tokens (AIP-158). A token names the last item seen, and the list it belongs to."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import TYPE_CHECKING

from promptpipe.model.errors import InvalidArgumentError
from promptpipe.model.listing import PageRequest
from promptpipe.model.text import storable

if TYPE_CHECKING:
    from typing import Protocol

    from promptpipe.model.listing import Page
    from promptpipe.rpc.framing import Message

    class ListRequest(Message, Protocol):
        """A request for a page of a list; its other fields are filters."""

        page_size: int
        page_token: str


DEFAULT_SIZE = 50
MAX_SIZE = 200
MAX_KEY = 400


def page_request(request: ListRequest) -> PageRequest:
    """Return the page that *request* asks for; raise `InvalidArgumentError` for a token of another list."""
    if request.page_size < 0:
        raise InvalidArgumentError("page_size", "must not be negative")
    size = min(request.page_size or DEFAULT_SIZE, MAX_SIZE)
    if not request.page_token:
        return PageRequest(size=size)
    try:
        fingerprint, after = json.loads(base64.urlsafe_b64decode(request.page_token.encode("ascii")))
    except (ValueError, TypeError, RecursionError):
        fingerprint, after = None, None
    usable = isinstance(after, str) and len(after) <= MAX_KEY and storable(after) == after
    if not usable or fingerprint != _fingerprint(request):
        raise InvalidArgumentError("page_token", "must be the next_page_token of this list, with the same filters")
    return PageRequest(size=size, after=after)


def next_page_token(request: ListRequest, page: Page[object]) -> str:
    """Return the token of the page after *page*; empty when there is none."""
    if page.last is None:
        return ""
    return base64.urlsafe_b64encode(json.dumps([_fingerprint(request), page.last]).encode()).decode()


def _fingerprint(request: ListRequest) -> str:
    """Return what tells one list from another: the kind of request and its filters."""
    filters = type(request).FromString(request.SerializeToString())
    filters.page_size, filters.page_token = 0, ""
    content = f"{type(request).__name__}:".encode() + filters.SerializeToString()
    return hashlib.sha256(content).hexdigest()[:16]
