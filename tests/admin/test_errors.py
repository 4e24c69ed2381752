"""What an error of ours is to a client."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from google.rpc.error_details_pb2 import RetryInfo
from grpclib.const import Status

from promptpipe.client import v1
from promptpipe.model import errors
from promptpipe.rpc.errors import failure_of
from tests.support.admin import open_admin, reason, refused
from tests.support.unreliable import Trouble

if TYPE_CHECKING:
    from tests.support.service import Home

SECRET = "/var/lib/secret.db is on fire"


def tree(root: type[Exception]) -> list[type[Exception]]:
    """Return all errors below *root*."""
    below = [kind for child in root.__subclasses__() for kind in tree(child)]
    return [root, *below]


EXPECTED = {
    "invalid_argument": Status.INVALID_ARGUMENT,
    "not_found": Status.NOT_FOUND,
    "already_exists": Status.ALREADY_EXISTS,
    "failed_precondition": Status.FAILED_PRECONDITION,
    "still_waiting": Status.DEADLINE_EXCEEDED,
    "store_unavailable": Status.UNAVAILABLE,
}


@pytest.mark.parametrize("kind", tree(errors.PromptPipeError), ids=lambda kind: kind.__name__)
def test_each_error_has_its_status(kind: type[errors.PromptPipeError]) -> None:
    """Those that are no business of a client's are INTERNAL, and say nothing."""
    error = kind.__new__(kind)
    error.__dict__.update(field="f", rule="r", resource="job", name="1")
    error.args = (SECRET,)
    failure = failure_of(error)
    assert failure.status is EXPECTED.get(kind.code, Status.INTERNAL)
    assert failure.ours is (failure.status is Status.INTERNAL)
    assert bool(failure.details) is not failure.ours
    if failure.status in {Status.INTERNAL, Status.UNAVAILABLE}:
        assert SECRET not in failure.text


def test_unknown_error_says_nothing_of_itself() -> None:
    """It is a defect: for the log, not for a peer."""
    failure = failure_of(KeyError(SECRET))
    assert (failure.status, failure.text, failure.details, failure.ours) == (
        Status.INTERNAL,
        "internal error",
        (),
        True,
    )


async def test_service_without_its_database_is_unavailable(home: Home) -> None:
    """The client learns when to come back, and nothing of the disk; then it works again."""
    trouble = Trouble({"jobs.list": 1})
    async with open_admin(home, trouble.wrap) as admin:
        error = await refused(admin.jobs.list_jobs(v1.ListJobsRequest()), Status.UNAVAILABLE)
        assert (error.message, reason(error)) == ("the database is not available", "STORE_UNAVAILABLE")
        [retry] = [detail for detail in error.details or () if isinstance(detail, RetryInfo)]
        assert retry.retry_delay.seconds == 1
        assert (await admin.jobs.list_jobs(v1.ListJobsRequest())).jobs == []
