"""A composition root that is the product's, but for what a test puts into it.

`python -m tests.faults.root [--kill POINT | --throw POINT] [--echo]`: ports that kill the process, or raise, at a
point (see `killer`); the echo flow in place of the coach.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import trio

from promptpipe import app
from promptpipe.config import load_settings
from promptpipe.logs import set_up_logging
from tests.faults.killer import Killer, Mortal
from tests.support.echo import EchoFlow

if TYPE_CHECKING:
    from promptpipe.flows.flow import Flow
    from promptpipe.ports.channel import Channel
    from promptpipe.ports.store import Store


def mortal(components: app.Components, killer: Killer) -> app.Components:
    """Return *components* with every port wrapped."""
    return replace(
        components,
        store=cast("Store", Mortal(components.store, "store", killer)),
        channels={
            name: cast("Channel", Mortal(channel, "channel", killer)) for name, channel in components.channels.items()
        },
        flows=[cast("Flow", Mortal(flow, "flow", killer)) for flow in components.flows],
    )


def echoing(components: app.Components, seconds: float = 0.0) -> app.Components:
    """Return *components* with the echo flow alone, which takes *seconds* to answer."""
    return replace(components, flows=[EchoFlow(seconds)], recoverables=[])


async def serve(arguments: argparse.Namespace) -> None:
    """Run the service as the arguments have it."""
    async with app.open_components(load_settings()) as components:
        point = arguments.kill or arguments.throw
        changed = echoing(components) if arguments.echo else components
        await app.run(mortal(changed, Killer(point, throw=bool(arguments.throw))) if point else changed)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--kill")
    parser.add_argument("--throw")
    parser.add_argument("--echo", action="store_true")
    set_up_logging(as_json=False)
    trio.run(serve, parser.parse_args())
