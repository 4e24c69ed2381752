"""What a measurement says, and how it is shown: to people in lines, to `bench.report` as JSON."""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

QUICK = "a tenth of everything, once"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measurement: *value* in *unit*, the median of the rounds, of which *low* and *high* are the ends.

    *of* says what was measured: a back end, or a peer. The bar, if there is one, is its least or its greatest value.
    """

    group: str
    what: str
    of: str
    value: float
    unit: str
    low: float
    high: float
    at_least: float | None = None
    at_most: float | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the bar is met; None when there is none."""
        if self.at_least is None and self.at_most is None:
            return None
        return (self.at_least is None or self.value >= self.at_least) and (
            self.at_most is None or self.value <= self.at_most
        )

    @property
    def bar(self) -> str:
        """The bar as people write it."""
        if self.at_most == 0:
            return "none"
        ends = [("≥", self.at_least), ("≤", self.at_most)]
        return ", ".join(f"{sign} {shown(end, self.unit)}" for sign, end in ends if end is not None)

    def __str__(self) -> str:
        met = {None: "", True: "met", False: "MISSED"}[self.met]
        spread = "" if self.low == self.high else f"({shown(self.low)} to {shown(self.high)})"
        return (
            f"{self.what:<58} {self.of:<14} {shown(self.value, self.unit):>18} {spread:<24} {self.bar:<14} {met:<7}"
            f"{self.note}"
        ).rstrip()


def figure(values: Sequence[float], **rest: Any) -> Figure:
    """Return the figure that rounds make; *rest* are the other fields."""
    return Figure(value=statistics.median(values), low=min(values), high=max(values), **rest)


def percentiles(
    seconds: Sequence[float], *, what: str, at_most: tuple[float | None, float | None] = (None, None), **rest: Any
) -> Iterator[Figure]:
    """Yield the median and the 99th percentile in ms; *at_most* are their bars."""
    ordered = sorted(seconds)
    for share, bar in zip((0.5, 0.99), at_most, strict=True):
        value = 1000 * ordered[int(share * (len(ordered) - 1))]
        yield figure([value], what=f"{what}, p{100 * share:.0f}", unit="ms", at_most=bar, **rest)


def shown(value: float, unit: str = "") -> str:
    """Return a value with three digits that mean something, more where a number has more before its point."""
    places = 0 if value == int(value) else max(0, 2 - math.floor(math.log10(abs(value))))
    number = f"{value:,.{places}f}"
    return number + (unit if unit.startswith("/") else f" {unit}" if unit else "")


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return what all measurements take."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--json", action="store_true", help="one line per measurement")
    options.add_argument("--quick", action="store_true", help=QUICK)
    return options


def show_machine(facts: dict[str, str], *, as_json: bool, quick: bool = False) -> None:
    """Say what is measured on and with, what else it is doing, and whether everything is measured."""
    facts = {**facts, "load before": f"{os.getloadavg()[0]:.2f}", "extent": QUICK if quick else "full"}
    if as_json:
        print(json.dumps({"machine": facts}), flush=True)
    else:
        print("; ".join(f"{name} {value}" for name, value in facts.items()), flush=True)


def show(figures: Iterable[Figure], *, as_json: bool) -> None:
    """Print figures as they come."""
    for measured in figures:
        print(json.dumps({"figure": asdict(measured)}) if as_json else measured, flush=True)
