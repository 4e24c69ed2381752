"""What the driver knows of psycopg's inside, and the check that it is still so.

Every private name the driver uses or replaces is listed here with its shape. A psycopg of another version is refused
even when all shapes agree: the same names may have come to mean something else. To take a new version, read its
changes, run `tests/postgres` with both of its implementations, and change `KNOWN_VERSION`.
"""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import TYPE_CHECKING, Any

import psycopg

if TYPE_CHECKING:
    from collections.abc import Iterator

KNOWN_VERSION = "3.3.9"

_GENERATORS = {
    "_connection_base:BaseConnection._cancel_gen": "self",
    "_connection_base:BaseConnection._check_intrans_gen": "self attribute",
    "_connection_base:BaseConnection._commit_gen": "self",
    "_connection_base:BaseConnection._connect_gen": "conninfo",
    "_connection_base:BaseConnection._exec_command": "self command result_format",
    "_connection_base:BaseConnection._rollback_gen": "self",
    "_connection_base:BaseConnection._start_query": "self",
    "_connection_base:BaseConnection._tpc_begin_gen": "self xid",
    "_connection_base:BaseConnection._tpc_finish_gen": "self action xid",
    "_connection_base:BaseConnection._tpc_prepare_gen": "self",
    "_cursor_base:BaseCursor._execute_gen": "self query params prepare binary",
    "_pipeline_base:BasePipeline._fetch_gen": "self flush",
    "_cursor_base:BaseCursor._stream_send_gen": "self query params binary size",
    "_pipeline_base:BasePipeline._communicate_gen": "self",
    "_pipeline_base:BasePipeline._enter_gen": "self",
    "_pipeline_base:BasePipeline._exit_gen": "self",
    "_pipeline_base:BasePipeline._sync_gen": "self",
    "_preparing:PrepareManager.maintain_gen": "self conn",
    "_server_cursor_base:ServerCursorMixin._close_gen": "self",
    "generators:copy_end": "pgconn error",
    "generators:copy_from": "pgconn",
    "generators:notifies": "pgconn",
    "transaction:BaseTransaction._enter_gen": "self",
    "transaction:BaseTransaction._exit_gen": "self exc_type exc_val exc_tb",
}
"""Generators that the driver runs, recognizes or leaves alone, each with its parameters."""

_FUNCTIONS = {
    "_connection_base:BaseConnection._check_connection_ok": "self",
    "_connection_base:BaseConnection._get_tx_start_command": "self",
    "_connection_base:BaseConnection._should_cancel": "self",
    "_conninfo_utils:get_param": "params name",
    "_conninfo_utils:get_param_def": "keyword _cache",
    "_conninfo_utils:is_ip_address": "s",
    "_conninfo_utils:split_attempts": "params",
    "_cursor_base:BaseCursor._check_results": "self results",
    "_cursor_base:BaseCursor._raise_for_result": "self result",
    "_cursor_base:BaseCursor._set_results": "self results",
    "_pipeline_async:AsyncPipeline.__init__": "self conn _no_lock",
    "_pipeline_base:BasePipeline._enqueue_sync": "self",
    "_pipeline_base:BasePipeline._exit": "self exc",
    "_pipeline_base:BasePipeline._process_results": "self queued results",
    "_preparing:PrepareManager.get": "self query prepare",
    "_preparing:PrepareManager.key": "query",
    "_preparing:PrepareManager.maybe_add_to_cache": "self query prep name",
    "_preparing:PrepareManager.validate": "self key prep name results",
    "_queries:PostgresQuery.convert": "self query vars",
    "_queries:PostgresQuery.dump": "self vars",
    "_preparing:PrepareManager._should_discard": "self prep results _PrepareManager__should_clear",
    "connection_async:AsyncConnection.__init__": "self pgconn row_factory",
    "connection_async:AsyncConnection._try_cancel": "self timeout",
    "connection_async:AsyncConnection._pipeline_nolock": "self",
    "connection_async:AsyncConnection.cancel_safe": "self timeout",
    "connection_async:AsyncConnection.close": "self",
    "connection_async:AsyncConnection.connect": "conninfo autocommit prepare_threshold context row_factory "
    "cursor_factory kwargs",
    "connection_async:AsyncConnection.pipeline": "self",
    "connection_async:AsyncConnection.tpc_recover": "self",
    "connection_async:AsyncConnection.transaction": "self savepoint_name force_rollback",
    "connection_async:AsyncConnection.wait": "self gen interval timeout",
    "conninfo:timeout_from_conninfo": "params",
    "transaction:BaseTransaction._get_commit_commands": "self",
    "transaction:BaseTransaction._get_enter_commands": "self",
    "transaction:BaseTransaction._get_rollback_commands": "self",
}
"""Functions that it calls or overrides."""

_OTHERS = (
    "_preparing:Key",
    "_preparing:Prepare.NO",
    "_preparing:Prepare.SHOULD",
    "errors:_WaitTimeout",
    "generators:cancel",
    "generators:fetch_many",
    "generators:send",
    "waiting:_ready",
)
"""Names that are no functions, or whose parameters a C implementation need not tell."""

_ATTRIBUTES = {
    "_connection_base:BaseConnection.__init__": "_adapters _autocommit _closed _num_transactions _pipeline _prepared "
    "_tpc pgconn",
    "connection_async:AsyncConnection.__init__": "cursor_factory lock row_factory",
    "_cursor_base:BaseCursor.__init__": "_conn",
    "_queries:PostgresQuery.__init__": "formats params query types",
    "_pipeline_base:BasePipeline.__init__": "command_queue level pgconn result_queue",
    "transaction:BaseTransaction.__init__": "_conn _outer_transaction _savepoint_name force_rollback pgconn status",
}
"""Attributes that a constructor sets."""

_WITHOUT_ASYNCIO = (
    "_copy_base",
    "_pipeline_async",
    "_server_cursor_async",
    "cursor_async",
    "generators",
    "transaction",
)
"""Modules that are run as they are, because they do not know which event loop it is."""


def check_psycopg(version: str = psycopg.__version__) -> None:
    """Raise `ImportError`, naming *version* and what has changed, unless psycopg is what the driver knows."""
    changes = list(_changes())
    if version == KNOWN_VERSION and not changes:
        return
    found = "; ".join(changes) or "the names it uses look the same, which proves little"
    raise ImportError(f"the driver is written for psycopg {KNOWN_VERSION}, not for {version}: {found}", name="psycopg")


def _changes() -> Iterator[str]:
    """Yield what is not as it was, in words."""
    compiled = _find("_cmodule:__version__")
    if compiled not in (None, KNOWN_VERSION):
        yield f"its compiled part has version {compiled}"
    yield from _changed_functions()
    yield from (f"{name} is gone" for name in _OTHERS if _find(name) is None)
    for name, attributes in _ATTRIBUTES.items():
        set_there = inspect.unwrap(_find(name)).__code__.co_names
        yield from (f"{name} sets no {attribute}" for attribute in attributes.split() if attribute not in set_there)
    for module in _WITHOUT_ASYNCIO:
        if _find(f"{module}:asyncio") is not None:
            yield f"{module} uses asyncio"


def _changed_functions() -> Iterator[str]:
    for name, expected in (_GENERATORS | _FUNCTIONS).items():
        found = _find(name)
        if found is None:
            yield f"{name} is gone"
            continue
        parameters = " ".join(inspect.signature(found).parameters)
        if parameters != expected:
            yield f"{name} takes ({parameters})"
        if name in _GENERATORS and not inspect.isgeneratorfunction(found):
            yield f"{name} is not a generator"


def _find(name: str) -> Any:
    """Return what `module:name` names within psycopg, or None."""
    module, _, path = name.partition(":")
    found: Any = import_module(f"psycopg.{module}")
    for part in path.split("."):
        found = getattr(found, part, None)
    return found
