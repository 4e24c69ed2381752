"""A composition root that is the product's, but for ports that kill it: `python -m tests.faults.root POINT`."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import trio

from promptpipe import app
from promptpipe.config import load_settings
from promptpipe.logs import set_up_logging
from tests.faults.killer import Killer, Mortal

if TYPE_CHECKING:
    from promptpipe.config import Settings
    from promptpipe.flows.flow import Flow
    from promptpipe.ports.channel import Channel
    from promptpipe.ports.store import Store


async def serve_mortally(settings: Settings, point: str) -> None:
    """Run the service until *point* kills it."""
    killer = Killer(point)
    async with app.open_components(settings) as components:
        mortal = replace(
            components,
            store=cast("Store", Mortal(components.store, "store", killer)),
            channels={
                name: cast("Channel", Mortal(channel, "channel", killer))
                for name, channel in components.channels.items()
            },
            flows=[cast("Flow", Mortal(flow, "flow", killer)) for flow in components.flows],
        )
        await app.run(mortal)


if __name__ == "__main__":
    loaded = load_settings()
    set_up_logging(as_json=False)
    trio.run(serve_mortally, loaded, sys.argv[1])
