"""The repository keeps its own rules: what is documented is true, what is written is used."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench import report
from promptpipe.cli import cli
from promptpipe.config import PREFIX, flat_names, load_settings
from promptpipe.storage.postgres import migrations as postgres_migrations
from promptpipe.storage.postgres import transaction as postgres
from promptpipe.storage.sqlite import migrations as sqlite_migrations
from promptpipe.storage.sqlite import transaction as sqlite

REPOSITORY = Path(__file__).parents[2]
README = (REPOSITORY / "README.md").read_text()
MODULES = sorted(path for path in (REPOSITORY / "promptpipe").rglob("*.py") if "pb" not in path.parts)  # generated
DOCUMENTS = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]


def test_every_setting_is_in_the_example_with_its_default(tmp_path: Path) -> None:
    """And nothing else is; what cannot have a default is commented out."""
    lines = (REPOSITORY / ".env.example").read_text().splitlines()
    named = [line.lstrip("#").partition("=")[0] for line in lines if re.match(rf"#?{PREFIX}\w+=", line)]
    assert sorted(named) == sorted(f"{PREFIX}{name}" for name in flat_names())
    defaults = load_settings()
    (tmp_path / ".env").write_text("\n".join(lines))
    assert load_settings() == defaults


def test_every_package_is_on_the_map() -> None:
    """A package that the architecture page does not name does not exist."""
    text = (REPOSITORY / "docs" / "architecture.md").read_text()
    packages = {
        ".".join(module.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")
        for module in MODULES
        if module.name == "__init__.py" or module.parent.name == "promptpipe"
    }
    packages -= {"promptpipe", "promptpipe.storage.sqlite.migrations", "promptpipe.storage.postgres.migrations"}
    assert [package for package in sorted(packages) if f"`{package}`" not in text] == []


@pytest.mark.parametrize("statements", [sqlite.STATEMENTS, postgres.STATEMENTS], ids=["sqlite", "postgres"])
def test_every_statement_is_used_and_every_name_used_is_one(statements: dict[str, str]) -> None:
    """No SQL that nobody runs."""
    code = "\n".join(module.read_text() for module in MODULES if "storage" in module.parts)
    assert [name for name in statements if f'"{name}"' not in code] == []
    shared = "\n".join(module.read_text() for module in MODULES if "transactions" in module.parts)
    assert set(re.findall(r'tx\.(?:run|count|one|all|the)\(\s*"(\w+)"', shared)) <= set(statements)


def test_both_back_ends_have_the_same_statements() -> None:
    """But for what only one of them can need: locks, and the lock on a file that proves that nobody else is there."""
    assert set(sqlite.STATEMENTS) - set(postgres.STATEMENTS) == {"delete_instances"}
    assert set(postgres.STATEMENTS) - set(sqlite.STATEMENTS) == {
        "lock_lanes",
        "lock_limited_queue",
        "lock_names",
    }


def test_migrations_are_numbered_without_gaps_and_alike() -> None:
    """One, two, three, and so on, with the same names in both back ends."""
    names = [[migration.name for migration in m.known_migrations()] for m in (sqlite_migrations, postgres_migrations)]
    assert names[0] == names[1]
    assert [int(name[:4]) for name in names[0]] == list(range(1, len(names[0]) + 1))


@pytest.mark.parametrize("name", ["runtime", "build"])
def test_image_is_made_of_what_is_tested(name: str) -> None:
    """Whatever is locked for the image is locked for development too, by the same versions and hashes."""
    tested, used = locked("lock"), locked(name)
    assert used
    assert {package: used[package] for package in used if used[package] != tested.get(package)} == {}


def test_image_has_what_runs_and_no_more() -> None:
    """All dependencies, and nothing that is only for development."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    names = {package.partition("==")[0] for package in locked("runtime")}
    assert bare(project["dependencies"]) <= names
    assert bare(project["optional-dependencies"]["dev"]) & names == set()


def locked(name: str) -> dict[str, list[str]]:
    """Return the hashes of each package in a lock, by its name and version."""
    text = (REPOSITORY / "requirements" / f"{name}.txt").read_text()
    blocks = re.findall(r"^(\S+==\S+)(.*(?:\n +--hash=.*)+)", text, re.MULTILINE)
    return {package: re.findall(r"sha256:\w+", rest) for package, rest in blocks}


def bare(requirements: list[str]) -> set[str]:
    """Return the names in *requirements*."""
    return {re.split(r"[^\w-]", requirement)[0].replace("_", "-") for requirement in requirements}


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_modules_stay_short(module: Path) -> None:
    """What does not fit into 400 lines is two things."""
    assert len(module.read_text().splitlines()) <= 400


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_links_lead_somewhere(document: Path) -> None:
    """Every relative link is to a file."""
    links = re.findall(r"\]\(([^)#]+)\)", document.read_text())
    broken = [link for link in links if "://" not in link and not (document.parent / link).exists()]
    assert broken == []


def test_every_decision_is_in_the_index() -> None:
    """In order, by its title."""
    folder = REPOSITORY / "docs" / "adr"
    index = (folder / "README.md").read_text()
    records = sorted(path for path in folder.glob("0*.md"))
    assert [int(path.name[:4]) for path in records] == list(range(1, len(records) + 1))
    for path in records:
        number, title = path.read_text().splitlines()[0].removeprefix("# ").split(". ", 1)
        assert f"- [{int(number):04} {title}]({path.name})" in index


def test_benchmarks_are_what_was_measured() -> None:
    """The page is made of the lines of one run, not written by hand."""
    run = report.Run.read(report.LINES.read_text().splitlines())
    assert report.PAGE.read_text() == run.page()
    assert report.PLOT.read_text() == report.drawn(run)


@pytest.mark.slow
def test_generated_code_is_what_the_protos_give(tmp_path: Path) -> None:
    """Nobody edits it, and nobody forgets `make proto`."""
    programs = str(Path(sys.executable).parent)
    (tmp_path / "proto").mkdir()
    subprocess.run(
        ["buf", "generate", "--output", str(tmp_path / "proto")],  # noqa: S607
        cwd=REPOSITORY / "proto",
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"},
        capture_output=True,
        check=True,
    )
    made, kept = tmp_path / "promptpipe/rpc/pb", REPOSITORY / "promptpipe/rpc/pb"
    files = {path.relative_to(made) for path in made.rglob("*") if path.is_file()}
    assert files == {path.relative_to(kept) for path in kept.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert [str(file) for file in files if (made / file).read_bytes() != (kept / file).read_bytes()] == []


def readme_commands() -> list[str]:
    """Return the commands in the README's indented blocks."""
    lines = re.findall(r"^    (\S.*)$", README, re.MULTILINE)
    return [re.split(r"\s{3,}", line)[0] for line in lines]


@pytest.mark.parametrize(
    "command", [line for line in readme_commands() if "promptpipe " in line and "pkill" not in line]
)
def test_commands_of_the_readme_exist(command: str) -> None:
    """Asked for help, each with its options is understood."""
    arguments = command.removeprefix(".venv/bin/promptpipe ").split()
    ended = CliRunner().invoke(cli, [*arguments, "--help"])
    assert ended.exit_code == 0, ended.output


@pytest.mark.parametrize("command", [line for line in readme_commands() if "make " in line])
def test_targets_of_the_readme_exist(command: str) -> None:
    """`make help` shows them, and settings before them are real ones."""
    *settings, _, target = command.split()
    shown = subprocess.run(["make", "help"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout  # noqa: S607
    assert re.search(rf"make {target}\s", shown)
    for setting in settings:
        assert setting.partition("=")[0].removeprefix(PREFIX) in set(flat_names())
