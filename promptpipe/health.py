"""Whether the service takes webhooks, for a container's health check: `python -m promptpipe.health`.

By the standard library alone: this runs every few seconds, and the command line takes ten times as long to start. Not
by urllib, which would go through the proxy that a container's environment may name.
"""

from __future__ import annotations

import os
import sys
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException

SECONDS = 4.0
ENOUGH = 200
"""Bytes of an answer."""


def main() -> int:
    """Ask the service at PROMPTPIPE_HTTP_BIND, say what it answers, and return 0 if it is ready, else 1."""
    host, _, port = os.environ.get("PROMPTPIPE_HTTP_BIND", "127.0.0.1:8080").rpartition(":")
    connection = HTTPConnection(host.strip("[]"), int(port), timeout=SECONDS)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        ready, said = answer.status == HTTPStatus.OK, answer.read(ENOUGH).decode(errors="replace")
    except (OSError, HTTPException) as error:
        ready, said = False, f"no answer: {error}"
    finally:
        connection.close()
    sys.stdout.write(said + "\n")
    return 0 if ready else 1


if __name__ == "__main__":
    sys.exit(main())
