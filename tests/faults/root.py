"""A composition root that is the product's, but for what a test puts into it.

`[--kill POINT | --throw POINT] [--echo SECONDS] [--deadly]`: ports that kill the process, or raise, at a point (see
`killer`); the echo flow, which takes so long to answer, in place of the coach; the kinds of jobs of `kinds`.

Where the point is in claiming or marking, all is claimed and marked, and nothing handed over with the commit before.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from promptpipe import app
from promptpipe.config import load_settings
from tests.faults.killer import Killer, Mortal
from tests.faults.kinds import deadly_kinds
from tests.support.echo import EchoFlow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from promptpipe.flows.flow import Flow
    from promptpipe.model.leases import Work
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


def echoing(components: app.Components, seconds: float) -> app.Components:
    """Return *components* with the echo flow alone, which takes *seconds* to answer."""
    return replace(components, flows=[EchoFlow(seconds)], recoverables=[])


def _nobody_has_room(work: Work) -> None:
    del work


async def serve(arguments: Sequence[str], *, with_process: int) -> None:
    """Run the service as *arguments* have it, for as long as a process runs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kill")
    parser.add_argument("--throw")
    parser.add_argument("--echo", type=float)
    parser.add_argument("--deadly", action="store_true")
    wanted = parser.parse_args(arguments)
    async with app.open_components(load_settings()) as opened:
        components = opened if wanted.echo is None else echoing(opened, wanted.echo)
        if wanted.deadly:
            ours = {kind.name: kind for kind in deadly_kinds(components)}
            components = replace(components, job_kinds={**components.job_kinds, **ours})
        if point := wanted.kill or wanted.throw:
            components = mortal(components, Killer(point, throw=bool(wanted.throw)))
            if ".claim:" in point or ".mark_sending:" in point:
                components.wakeups.offer = _nobody_has_room  # type: ignore[method-assign]
        await app.run(components, with_process=with_process)
