"""What installed packages add: found, made, checked. What cannot be used is said in one line."""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, get_args

import pytest

from promptpipe import extend
from promptpipe.app.components import open_components
from promptpipe.app.extensions import SHAPES, Extensions, load_extensions
from promptpipe.config import PREFIX, extension_settings, load_settings, unknown_settings
from promptpipe.extend import Content, Event, Flow, Prompt, PromptGenerator, Recoverable, ResponseHandler
from promptpipe.model.errors import ExtensionError, SettingsError
from promptpipe.model.ids import IdSource
from promptpipe.ports.extensions import ExtensionContext
from promptpipe.services.jobs import NOOP
from tests.support.echo import EchoFlow

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

MODULE = "installed_for_a_test"
CODE = """
from tests.support.echo import EchoFlow
from promptpipe.extend import JobKind

class Diary:
    flow_type = handler_type = "diary"
    initial_state = "NEW"
    job_kinds = frozenset({"nudge"})

    def __init__(self, context):
        self.context = context

    async def handle(self, event, state, context): ...

class Weather:
    name = "weather"

    def __init__(self, context): ...

    async def generate(self, parameters, context): ...

class Question:
    handler_type = "question"

    def __init__(self, context): ...

    async def respond(self, reply, hook, context): ...

class DiaryRecovery:
    name = "diary"

    def __init__(self, context): ...

    async def recover_state(self, registry): ...

def export(context):
    async def run(job, payload): ...
    return JobKind(name="export", run=run)

def named(what, **names):
    return lambda context: type("Named", (what,), names)(context)

def secretive(context):
    raise ValueError("no answer from https://ada:hunter2@example.org/?password=hunter2\\nat all")

def quitting(context):
    raise SystemExit("bye")

def noop(context):
    async def run(job, payload): ...
    return JobKind(name="noop", run=run)

class Moody(Diary):
    @property
    def initial_state(self):
        raise LookupError("not in the mood")

class Synchronous(Diary):
    def handle(self, event, state, context): ...

echo = lambda context: EchoFlow()
instance = Diary(None)
nothing = lambda context: None
numbered = named(Diary, flow_type=7)
nameless = named(Diary, flow_type="")
listed = named(Diary, job_kinds=["nudge"])

class Other(Diary):
    flow_type = handler_type = "other"
    job_kinds = frozenset({"other"})

conversation = named(Other, flow_type="conversation")
coach = named(Other, handler_type="conversation")
prompts = named(Other, flow_type="prompts")
scheduler = named(Other, job_kinds=frozenset({"scheduled_prompt"}))
nudger = named(Other, job_kinds=frozenset({"nudge"}))
exporter = named(Other, job_kinds=frozenset({"export"}))
kindless = named(Diary, job_kinds=frozenset({7}))
branch = named(Question, handler_type="branch")
diarist = named(Question, handler_type="diary")
twin = named(DiaryRecovery)
"""


@dataclass(frozen=True)
class Site:
    """A folder from which modules and packages can be imported."""

    folder: Path

    def install(self, name: str, groups: Mapping[str, str], version: str = "1.0") -> None:
        """Install a package that has an entry point in each of the *groups*, to what CODE has under that name."""
        found = self.folder / f"{name.replace('-', '_')}-{version}.dist-info"
        found.mkdir()
        (found / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        entries = [
            f"[promptpipe.{group}]\n{entry_name(value)} = {value if ':' in value else f'{MODULE}:{value}'}\n"
            for group, value in groups.items()
        ]
        (found / "entry_points.txt").write_text("\n".join(entries))


def entry_name(value: str) -> str:
    """Return what the entry point to *value* is called."""
    return value.rpartition(":")[2]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Give a folder with the module, in which nothing is installed yet."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / f"{MODULE}.py").write_text(CODE)
    monkeypatch.syspath_prepend(folder)
    yield Site(folder)
    sys.modules.pop(MODULE, None)


def context_for(package: str) -> ExtensionContext:
    clock = FixedClock()
    new_id = IdSource(clock.now, random.Random(1).getrandbits)
    return ExtensionContext(clock=clock, new_id=new_id, settings={"package": package})


class FixedClock:
    """`ports.clock.Clock` that stands still."""

    def now(self) -> datetime:
        return datetime(2026, 3, 1, tzinfo=UTC)

    def boottime(self) -> float:
        return 0.0


def load(ours: Extensions | None = None) -> Extensions:
    return load_extensions(ours or Extensions(), context_for)


def refused(ours: Extensions | None = None) -> str:
    """Return why what is installed cannot be used: one line."""
    with pytest.raises(ExtensionError) as raised:
        load(ours)
    [line] = str(raised.value).splitlines()
    return line


ALL = {
    "flows": "Diary",
    "prompt_generators": "Weather",
    "response_handlers": "Question",
    "job_kinds": "export",
    "recoverables": "DiaryRecovery",
}


def test_package_adds_to_what_is_ours(site: Site) -> None:
    """One object from each of its entry points, after ours, made with what is the package's own."""
    site.install("mood-diary", ALL, "1.2")
    loaded = load(Extensions(flows=(EchoFlow(),), job_kinds=(NOOP,)))
    assert loaded.packages == ("mood-diary 1.2",)
    assert [flow.flow_type for flow in loaded.flows] == ["echo", "diary"]
    assert loaded.flows[1].context.settings == {"package": "mood-diary"}  # type: ignore[attr-defined]
    assert [generator.name for generator in loaded.prompt_generators] == ["weather"]
    assert [handler.handler_type for handler in loaded.response_handlers] == ["question"]
    assert [kind.name for kind in loaded.job_kinds] == ["noop", "export"]
    assert [recoverable.name for recoverable in loaded.recoverables] == ["diary"]


def test_without_packages_there_is_what_is_ours() -> None:
    """Nothing is added, and nobody named."""
    ours = Extensions(flows=(EchoFlow(),))
    assert load(ours) == ours


def test_order_is_that_of_the_packages_names(site: Site) -> None:
    """Whatever the order in which they are found: two starts are alike."""
    site.install("zebra", {"flows": "Diary"})
    site.install("aardvark", {"flows": "echo", "recoverables": "DiaryRecovery"})
    loaded = load()
    assert loaded.packages == ("aardvark 1.0", "zebra 1.0")
    assert [flow.flow_type for flow in loaded.flows] == ["echo", "diary"]


@pytest.mark.parametrize(
    ("group", "value", "reason"),
    [
        ("flows", "not_installed:Diary", "cannot be imported: ModuleNotFoundError: No module named 'not_installed'"),
        ("flows", f"{MODULE}:Dairy", f"AttributeError: module '{MODULE}' has no attribute 'Dairy'"),
        ("flows", "instance", f"{MODULE}:instance is no factory, but an object of type Diary"),
        (
            "flows",
            "secretive",
            f"{MODULE}:secretive failed: ValueError: no answer from https://ada:********@example.org",
        ),
        ("flows", "quitting", "quitting failed: SystemExit: bye"),
        ("flows", "nothing", "what it returned, of type NoneType, has no flow_type that is a str"),
        ("flows", "numbered", "has no flow_type that is a str"),
        ("flows", "nameless", "'' is no name for a flow"),
        ("flows", "listed", "has no job_kinds that is a frozenset"),
        ("flows", "kindless", "7 is no name for a job kind"),
        ("flows", "Moody", "what it returned, of type Moody, failed: LookupError: not in the mood"),
        ("flows", "Synchronous", "what it returned, of type Synchronous, has no async function handle"),
        ("prompt_generators", "Diary", "has no name that is a str"),
        ("prompt_generators", "DiaryRecovery", "has no async function generate"),
        ("response_handlers", "Diary", "has no async function respond"),
        ("recoverables", "Weather", "has no async function recover_state"),
        ("job_kinds", "Weather", "of type Weather, is no JobKind"),
    ],
)
def test_extension_that_cannot_be_used_is_named(site: Site, group: str, value: str, reason: str) -> None:
    """Package, version, entry point, group, and why: in one line, without passwords."""
    site.install("mood-diary", {group: value})
    line = refused()
    assert line.startswith(f"extension mood-diary 1.0: entry point {entry_name(value)!r} of promptpipe.{group}: ")
    assert reason in line
    assert "hunter2" not in line
    assert len(line) < 1000


def test_fault_is_said_with_its_place(site: Site) -> None:
    """The author's file and line: there is no traceback to look at."""
    site.install("mood-diary", {"flows": "quitting"})
    line = 1 + CODE.splitlines().index('    raise SystemExit("bye")')
    assert refused().endswith(f"SystemExit: bye ({MODULE}.py, line {line})")


def test_broken_module_is_said_with_its_place(site: Site) -> None:
    """It was being imported, and not through our fault."""
    (site.folder / f"{MODULE}.py").write_text("import os\n\nos.nonsense\n")
    site.install("mood-diary", {"flows": "Diary"})
    assert f"has no attribute 'nonsense' ({MODULE}.py, line 3)" in refused()


@pytest.mark.parametrize(
    ("group", "value", "taken"),
    [
        ("flows", "conversation", "the flow 'conversation' is taken by PromptPipe"),
        ("flows", "coach", "the response handler 'conversation' is taken by PromptPipe"),
        ("flows", "prompts", "the flow 'prompts' is taken by PromptPipe"),
        ("flows", "scheduler", "the job kind 'scheduled_prompt' is taken by PromptPipe"),
        ("response_handlers", "branch", "the response handler 'branch' is taken by PromptPipe"),
        ("job_kinds", "noop", "the job kind 'noop' is taken by PromptPipe"),
        ("flows", "nudger", "the job kind 'nudge' is taken by 'Diary' of all-of-it"),
        ("flows", "exporter", "the job kind 'export' is taken by 'export' of all-of-it"),
        ("response_handlers", "diarist", "the response handler 'diary' is taken by 'Diary' of all-of-it"),
        ("prompt_generators", "Weather", "the prompt generator 'weather' is taken by 'Weather' of all-of-it"),
        ("recoverables", "twin", "the recoverable 'diary' is taken by 'DiaryRecovery' of all-of-it"),
    ],
)
def test_name_that_somebody_has_is_refused(site: Site, group: str, value: str, taken: str) -> None:
    """Ours, or another package's: whoever would get the events is never left to chance."""
    conversation = type("Coach", (EchoFlow,), {"flow_type": "conversation", "handler_type": "conversation"})
    site.install("all-of-it", ALL)
    site.install("another", {group: value})
    assert refused(Extensions(flows=(conversation(),), job_kinds=(NOOP,))).endswith(taken)


def test_entry_points_that_cannot_be_read_are_no_traceback(site: Site) -> None:
    """A file that no installer has written."""
    site.install("mood-diary", ALL)
    [file] = site.folder.glob("*/entry_points.txt")
    file.write_text("[promptpipe.flows]\nnonsense\n")
    assert refused().startswith("the installed packages' entry points cannot be read: ")


@pytest.mark.parametrize(
    ("group", "protocol"),
    [
        ("flows", Flow),
        ("prompt_generators", PromptGenerator),
        ("response_handlers", ResponseHandler),
        ("recoverables", Recoverable),
    ],
)
def test_everything_that_a_protocol_asks_for_is_looked_at(group: str, protocol: type) -> None:
    """One that changes without this would let objects in that do not fit."""
    shape = SHAPES[f"promptpipe.{group}"]
    asked = {name for name in vars(protocol) if not name.startswith("_")}
    assert asked == {*shape.attributes, *shape.coroutines}


def test_every_group_has_its_objects() -> None:
    """A group that `Extensions` has no field for could not be loaded."""
    assert {group.removeprefix("promptpipe.") for group in SHAPES} == {field.name for field in fields(Extensions)} - {
        "packages"
    }


def test_authors_can_name_whatever_they_are_given_and_give() -> None:
    """Events, contents and prompts, all kinds of them, from the one module that they import from."""
    kinds = {*get_args(Event), *get_args(Content), *get_args(Prompt)}
    assert {kind.__name__ for kind in kinds} <= set(extend.__all__)


def test_settings_are_the_packages_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By their lower-case names, from `.env` and, before it, the environment; they are no unknown settings."""
    prefix = f"{PREFIX}EXTENSION__MOOD_DIARY__"
    (tmp_path / ".env").write_text(f"{prefix}EVERY=1\n{prefix}TOKEN=t\n{PREFIX}EXTENSION__MOOD__EVERY=2\n")
    monkeypatch.setenv(f"{prefix}EVERY", "3")
    assert extension_settings("Mood.diary") == extension_settings("mood-diary") == {"every": "3", "token": "t"}
    assert list(unknown_settings()) == []


async def test_components_are_ours_and_the_packages(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service is made of both; people are enrolled into the flow that is set."""
    site.install("mood-diary", ALL, "1.2")
    monkeypatch.setenv(f"{PREFIX}EXTENSION__MOOD_DIARY__EVERY", "20")
    for enrolled, order in (("conversation", ["conversation", "diary"]), ("diary", ["diary", "conversation"])):
        async with open_components(load_settings(enroll_flow=enrolled)) as components:
            flows = {flow.flow_type: flow for flow in components.flows}
            assert list(flows) == order
            assert flows["diary"].context.settings == {"every": "20"}  # type: ignore[attr-defined]
            assert [recoverable.name for recoverable in components.recoverables] == ["conversation flow", "diary"]
            assert set(components.job_kinds) == {"noop", "export"}
            assert [handler.handler_type for handler in components.handlers] == ["question"]
            assert [generator.name for generator in components.prompt_generators] == ["weather"]
            assert components.packages == ("mood-diary 1.2",)


async def test_start_is_stopped_before_anything_is_touched(site: Site, tmp_path: Path) -> None:
    """By a flow to enroll into that is not there, and by an extension that cannot be used: no database is made."""
    with pytest.raises(SettingsError) as raised:
        async with open_components(load_settings(enroll_flow="diary")):
            pass
    assert str(raised.value) == f"{PREFIX}ENROLL_FLOW: no flow is called diary; there are: conversation"
    site.install("mood-diary", {"flows": "conversation"})
    with pytest.raises(ExtensionError):
        async with open_components(load_settings()):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["site"]
