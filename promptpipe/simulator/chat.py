"""A phone in the terminal."""

from __future__ import annotations

import os
import sys
import textwrap
from http import HTTPStatus
from typing import TYPE_CHECKING

import httpx2
import trio
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from rich.console import Console

WAIT_SECONDS = 20
RECONNECT_SECONDS = 1.0


async def chat(base_url: str, number: str, name: str | None, console: Console) -> int:
    """Be a person: lines typed are sent, what arrives is shown; return the exit code at the end of input."""
    async with httpx2.AsyncClient(base_url=base_url, timeout=WAIT_SECONDS + 10) as client:
        try:
            answer = await client.post("/api/people", json={"number": number, "name": name})
        except httpx2.ConnectError:
            console.print(
                f"No simulator at {base_url}: start it with `promptpipe simulator` or `make run`.",
                style="red",
            )
            return 1
        if answer.status_code != HTTPStatus.CREATED:
            console.print(answer.json()["error"], style="red")
            return 2
        person = answer.json()
        console.print(f"You are {person['name']} ({person['number']}). Type and press Enter; Ctrl-D ends.", style="dim")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_show, client, person["number"], console)
            async for line in _lines():
                if text := line.strip():
                    await _say(client, person["number"], text, console)
            nursery.cancel_scope.cancel()
    return 0


async def _say(client: httpx2.AsyncClient, number: str, text: str, console: Console) -> None:
    try:
        answer = await client.post(f"/api/people/{number}/messages", json={"text": text})
    except httpx2.RequestError as error:
        console.print(f"not sent: {type(error).__name__}", style="red")
        return
    if answer.status_code != HTTPStatus.CREATED:
        console.print(f"not sent: {answer.json()['error']}", style="red")


async def _show(client: httpx2.AsyncClient, number: str, console: Console) -> None:
    """Print what arrives on the phone."""
    since = 0
    shown: set[str] = set()
    while True:
        try:
            answer = await client.get(f"/api/people/{number}/messages", params={"since": since, "wait": WAIT_SECONDS})
        except httpx2.RequestError:
            await trio.sleep(RECONNECT_SECONDS)
            continue
        data = answer.json()
        since = data["changes"]
        for bubble in data["messages"]:
            if not bubble["mine"] and bubble["id"] not in shown:
                shown.add(bubble["id"])
                console.print(Text(textwrap.indent(bubble["text"], "  "), style="green"))


async def _lines() -> AsyncIterator[str]:
    """Yield the lines of standard input."""
    descriptor = sys.stdin.fileno()
    pending = b""
    while True:
        try:
            await trio.lowlevel.wait_readable(descriptor)
        except PermissionError:
            await trio.lowlevel.checkpoint()  # a file is always readable
        data = os.read(descriptor, 65536)
        *lines, pending = (pending + data).split(b"\n")
        if not data and pending:
            lines.append(pending)
        for line in lines:
            yield line.decode(errors="replace")
        if not data:
            return
