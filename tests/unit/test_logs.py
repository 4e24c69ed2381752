"""Log entries: one format for all, and nothing in them that is nobody's business."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

import pytest
import structlog

from promptpipe.logs import set_up_logging

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    """Leave logging as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


def fail_with_a_secret() -> None:
    secret = "hunter2"
    raise ValueError(f"{len(secret)} characters")


@pytest.mark.parametrize("as_json", [True, False])
def test_tracebacks_show_no_local_variables(capsys: pytest.CaptureFixture[str], as_json: bool) -> None:
    """What people said, and what nobody may know, is in variables."""
    set_up_logging(as_json=as_json)
    try:
        fail_with_a_secret()
    except ValueError as error:
        structlog.get_logger("test").warning("failed", exc_info=error)
    logged = capsys.readouterr().err
    assert "7 characters" in logged
    assert "fail_with_a_secret" in logged
    assert "hunter2" not in logged


def test_libraries_log_in_the_same_format(capsys: pytest.CaptureFixture[str]) -> None:
    """Each line one JSON object, ours and theirs."""
    set_up_logging(as_json=True)
    structlog.get_logger("ours").info("one", n=1)
    logging.getLogger("theirs").warning("two %s", "words")
    logging.getLogger("hypercorn.error").info("Running on ...")
    ours, theirs = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (ours["event"], ours["n"], ours["level"], ours["logger"]) == ("one", 1, "info", "ours")
    assert (theirs["event"], theirs["level"], theirs["logger"]) == ("two words", "warning", "theirs")
