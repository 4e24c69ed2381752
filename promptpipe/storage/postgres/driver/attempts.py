"""From connection parameters to the attempts that they mean: which hosts, which addresses, in which order."""

from __future__ import annotations

import socket
from random import shuffle
from typing import TYPE_CHECKING

import trio
from psycopg import OperationalError
from psycopg._conninfo_utils import get_param, get_param_def, is_ip_address, split_attempts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg import Error
    from psycopg.abc import ConnDict, ConnMapping


async def connection_attempts(parameters: ConnMapping) -> list[ConnDict]:
    """Return the parameters of each attempt, in order: every address of every host.

    libpq would try several hosts and addresses by itself, but knows no time limit when it is not allowed to block, and
    blocks to look up names. Raise `OperationalError` when no host has an address. The rules are libpq's, as psycopg
    follows them: `load_balance_hosts`, and `prefer-standby` as two rounds, of which the second takes any server.
    """
    standby_first = get_param(parameters, "target_session_attrs") == "prefer-standby"
    if standby_first:
        parameters = {name: value for name, value in parameters.items() if name != "target_session_attrs"}
    attempts: list[ConnDict] = []
    unknown: list[str] = []
    for place in split_attempts(parameters):
        try:
            attempts += [{**place, "hostaddr": address} if address else place for address in await _addresses(place)]
        except (OSError, UnicodeError) as error:
            unknown.append(f"failed to resolve host {place.get('host')!r}: {error}")
    if not attempts:
        raise OperationalError("\n".join(unknown))
    if get_param(parameters, "load_balance_hosts") == "random":
        shuffle(attempts)
    if standby_first:
        attempts = [{**attempt, "target_session_attrs": "standby"} for attempt in attempts] + attempts
    return attempts


async def _addresses(place: ConnMapping) -> Sequence[str | None]:
    """Return the addresses of a single host; [None] when libpq needs none (a Unix socket, an address given)."""
    host = get_param(place, "host")
    if not host or host.startswith(("/", "@")) or get_param(place, "hostaddr"):
        return [None]
    if is_ip_address(host):
        return [host]
    port = get_param(place, "port")
    if not port:
        default = get_param_def("port")
        port = (default and default.compiled) or "5432"
    found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return [str(address[0]) for *_, address in found]


def failure_of_all(failures: Sequence[tuple[ConnMapping, Error]]) -> Error:
    """Return the error to raise when every attempt failed: the last one, which tells of the others.

    Its type is the last one's; all of them are the group that is its cause.
    """
    last = failures[-1][1]
    if len(failures) == 1:
        return last
    lines = [str(last), "Multiple connection attempts failed. All failures were:"]
    for attempt, error in failures:
        where = ", ".join(f"{name}: {attempt.get(name)!r}" for name in ("host", "port", "hostaddr"))
        lines.append(f"- {where}: {error}")
    combined = type(last)("\n".join(lines), pgconn=last.pgconn)
    combined.__cause__ = ExceptionGroup("connection attempts", [error for _, error in failures])
    return combined
