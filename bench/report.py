"""One run's lines of JSON as a page: `python -m bench.report`, or `make bench-report` for the run and the page.

It reads `docs/benchmarks.jsonl` and writes `docs/benchmarks.md` and the plot that belongs to it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.figures import QUICK, Figure, shown
from bench.plot import Bar, Drawing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

DOCS = Path(__file__).parents[1] / "docs"
LINES = DOCS / "benchmarks.jsonl"
PAGE = DOCS / "benchmarks.md"
TEMPLATE = Path(__file__).with_name("page.md")
PLOT = DOCS / "img" / "benchmarks.svg"

NAMES = {"postgres": "PostgreSQL", "sqlite": "SQLite", "promptpipe": "PromptPipe"}
US = "PromptPipe"

GROUPS = (
    "jobs",
    "latency",
    "beside",
    "growth",
    "outbox",
    "lanes",
    "webhook",
    "conversation",
    "restart",
    "rpc",
    "driver",
)
NOT_MEASURED = "Not measured in this run."


@dataclass(frozen=True)
class Run:
    """What a run has measured."""

    facts: dict[str, str]
    figures: Sequence[Figure]

    @classmethod
    def read(cls, lines: Iterable[str]) -> Run:
        """Return the run that wrote *lines*."""
        facts: dict[str, str] = {}
        figures = []
        for line in lines:
            entry = json.loads(line)
            if "figure" in entry:
                figures.append(Figure(**entry["figure"]))
                continue
            told = entry["machine"]
            loads = [float(one["load before"]) for one in (facts, told) if "load before" in one]
            extents = {one["extent"] for one in (facts, told) if "extent" in one}
            facts |= told | {"load before": f"{max(loads):.2f}", "extent": QUICK if QUICK in extents else "full"}
        return cls(facts, figures)

    def group(self, name: str) -> list[Figure]:
        """Return the figures of a group."""
        return [one for one in self.figures if one.group == name]

    def page(self) -> str:
        """Return the page."""
        parts = {"machine": self._machine(), "bars": self._bars(), "peers": self._peers(), "tries": self._tries()}
        parts["plot"] = f"![Jobs drained, how soon they start, and growth]({PLOT.relative_to(DOCS)})"
        parts |= {name: pivoted(self.group(name)) for name in GROUPS}
        return re.sub(r"{{(\w+)}}", lambda found: parts[found[1]] or NOT_MEASURED, TEMPLATE.read_text())

    def _machine(self) -> str:
        facts = {name: value for name, value in self.facts.items() if name not in {"load before", "extent"}}
        lines = [
            f"Measured on: {', '.join(f'{name} {value}' for name, value in facts.items())}.",
            f"The load average before a part of the run was {self.facts['load before']} at most.",
        ]
        if self.facts["extent"] == QUICK:
            lines.append(f"**This run was a look, {QUICK}:** what it takes to get going weighs heavily in it.")
        return "\n".join(lines)

    def _bars(self) -> str:
        order = ("peers", *GROUPS)
        with_bars = sorted((one for one in self.figures if one.met is not None), key=lambda one: order.index(one.group))
        met = sum(bool(one.met) for one in with_bars)
        rows = [
            [f"{one.what}, {named(one.of)}", valued(one), one.bar, "yes" if one.met else "**no**"] for one in with_bars
        ]
        return f"{met} of {len(with_bars)} are met.\n\n{table(['what', 'measured', 'bar', 'met'], rows)}"

    def _peers(self) -> str:
        figures = [one for one in self.group("peers") if not is_try(one)]
        columns = list(dict.fromkeys(one.what for one in figures))
        rows = []
        for name in dict.fromkeys(one.of for one in figures if not is_ratio(one)):
            theirs = [one for one in figures if one.of in (name, f"{US} / {name}")]
            cells = ["<br>".join(valued(one) for one in theirs if one.what == what) for what in columns]
            rows.append([named(name), *cells, theirs[0].note])
        return table(["", *columns, "settings"], rows) if rows else ""

    def _tries(self) -> str:
        tries = [one for one in self.group("peers") if is_try(one)]
        return "\n".join(f"- {named(one.of)}, {one.note}: {valued(one)}" for one in tries)


def is_try(one: Figure) -> bool:
    """Whether a figure is of settings that were tried."""
    return one.what.endswith("a try")


def is_ratio(one: Figure) -> bool:
    """Whether a figure is our ratio to a peer."""
    return one.of.startswith(f"{US} /")


def named(of: str) -> str:
    """Return what a figure is of, as people call it."""
    first, _, rest = of.partition(", ")
    return ", ".join(NAMES.get(part, part) for part in (first, rest) if part)


def valued(one: Figure) -> str:
    """Return a figure with the ends of its rounds."""
    spread = "" if one.low == one.high else f" ({shown(one.low)} to {shown(one.high)})"
    return shown(one.value, one.unit) + spread


def pivoted(figures: Sequence[Figure]) -> str:
    """Return a table of what by of; nothing when there are no figures."""
    columns = list(dict.fromkeys(one.of for one in figures))
    cells: dict[str, dict[str, str]] = {}
    for one in figures:
        cells.setdefault(one.what, {})[one.of] = valued(one) + (f", {one.note}" if one.note else "")
    rows = [[what, *(row.get(column, "") for column in columns)] for what, row in cells.items()]
    return table(["", *map(named, columns)], rows) if rows else ""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def drawn(run: Run) -> str:
    """Return the plot."""
    drawing = Drawing()

    def bars(choose: Callable[[Figure], bool]) -> list[Bar]:
        chosen = [one for one in run.group("peers") if choose(one) and not is_try(one) and not is_ratio(one)]
        return [Bar(named(one.of), one.value, one.low, one.high, ours=one.of.startswith(US)) for one in chosen]

    drawing.bars("No-op jobs drained a second", "/s", bars(lambda one: one.what == "no-op jobs drained"))
    drawing.bars("Enqueue to start at rest, median", "ms", bars(lambda one: one.what.endswith("rest, p50")))
    growth = [one for one in run.group("growth") if one.unit == "/s"]
    sizes = list(dict.fromkeys(one.what.rpartition(" ")[2] for one in growth))
    series: dict[str, list[float]] = {}
    for one in growth:
        series.setdefault(f"{one.what.split()[0]}, {named(one.of)}", []).append(one.value)
    drawing.lines("Jobs a second beside so many timers and ended jobs", sizes, series)
    return drawing.svg()


def main() -> None:
    run = Run.read(LINES.read_text().splitlines())
    PAGE.write_text(run.page())
    PLOT.parent.mkdir(exist_ok=True)
    PLOT.write_text(drawn(run))


if __name__ == "__main__":
    main()
