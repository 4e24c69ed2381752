"""Every error PromptPipe raises on purpose, each with a code that never changes.

Edges (gRPC, HTTP, the command line) map codes to their own answers in one table each. An error that is not in
this tree is a defect: it ends the process, or one request, and its text is never shown to a peer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from datetime import datetime

    from promptpipe.model.ids import EventId


def described(error: BaseException) -> str:
    """Return an error in one line: its type, and its text if it has one."""
    name, text = type(error).__name__, str(error)
    return f"{name}: {text}" if text else name


class PromptPipeError(Exception):
    """Base of all errors that callers are meant to handle."""

    code: ClassVar[str] = "internal"


class SettingsError(PromptPipeError):
    """A setting is missing, malformed or refused; the text names it."""

    code = "settings"


class ExtensionError(SettingsError):
    """An installed package has an extension that cannot be used; the text says which, and why, in one line."""

    code = "extension"


class AddressInUseError(PromptPipeError):
    """Another process listens on the address that a server was to bind."""

    code = "address_in_use"


class StoreError(PromptPipeError):
    """Base of what storage raises."""

    code = "store"


class StoreUnavailableError(StoreError):
    """The database cannot commit now (disk full, locked, gone); the same call may succeed later."""

    code = "store_unavailable"


class StoreInUseError(StoreError):
    """Another process holds this SQLite file."""

    code = "store_in_use"


class SchemaError(StoreError):
    """The database's schema is newer than this program, or not what its migrations made."""

    code = "schema"


class LeaseLostError(StoreError):
    """The lease is no longer the current one: someone else holds the work, or it has ended."""

    code = "lease_lost"


class VersionConflictError(StoreError):
    """A flow state changed after it was loaded; the decision made from it was not applied."""

    code = "version_conflict"


class NotFoundError(StoreError):
    """There is no such thing; *resource* says of which kind, *name* which one."""

    code = "not_found"

    def __init__(self, resource: str, name: str, message: str | None = None) -> None:
        super().__init__(message or f"there is no {resource} {name}")
        self.resource = resource
        self.name = name


class AlreadyExistsError(StoreError):
    """Something with this unique value exists; *resource* and *name* say what."""

    code = "already_exists"

    def __init__(self, resource: str, name: str, message: str) -> None:
        super().__init__(message)
        self.resource = resource
        self.name = name


class PreconditionError(StoreError):
    """What was asked for is not possible in the state that the thing is in; the text says which."""

    code = "failed_precondition"


class StillWaitingError(PromptPipeError):
    """An order has not been carried out in the time that somebody waited for it; it stays in its mailbox."""

    code = "still_waiting"

    def __init__(self, event_id: EventId) -> None:
        super().__init__(f"the event {event_id} has not been handled yet; it will be")


class InvalidArgumentError(PromptPipeError):
    """A value given by a caller breaks a rule: *field* says which value, *rule* which rule."""

    code = "invalid_argument"

    def __init__(self, field: str, rule: str) -> None:
        super().__init__(f"{field}: {rule}")
        self.field = field
        self.rule = rule


class WebhookError(PromptPipeError):
    """Base of what makes a webhook request unacceptable."""

    code = "webhook"


class SignatureError(WebhookError):
    """A webhook's signature is missing or wrong."""

    code = "signature"


class VerificationError(WebhookError):
    """A webhook handshake did not carry our verify token."""

    code = "verification"


class MalformedBodyError(WebhookError):
    """A webhook's body is not a JSON object."""

    code = "malformed_body"


class FlowError(PromptPipeError):
    """Base of what goes wrong between an event and the flow that should handle it."""

    code = "flow"


class NoHandlerError(FlowError):
    """No response handler is registered for this participant, or no flow knows the event."""

    code = "no_handler"


class CorruptStateError(FlowError):
    """A flow state does not have the shape its flow gave it."""

    code = "corrupt_state"


class RefusedError(FlowError):
    """A flow will not do what an operator asked for; the text says why."""

    code = "refused"


class GenerationError(PromptPipeError):
    """A language model gave no answer, however often it was asked; the text says why, without what was said."""

    code = "generation"


class JobError(PromptPipeError):
    """Base of what a job handler raises to say what should become of its job."""

    code = "job"


class PayloadError(JobError):
    """A job's payload is not what its kind takes; the text says why."""

    code = "payload"


class RetryJobError(JobError):
    """This attempt failed; make the next *after* so many seconds, or *at* a time, and not by the kind's backoff."""

    code = "job_retried"

    def __init__(self, reason: str, *, after: float | None = None, at: datetime | None = None) -> None:
        super().__init__(reason)
        if (after is None) == (at is None):
            raise TypeError("either `after` or `at`")
        self.after = after
        self.at = at


class CancelJobError(JobError):
    """End the job as canceled: it is not wanted any more."""

    code = "job_canceled"


class SnoozeJobError(JobError):
    """Run the job again after *seconds*; the attempt does not count."""

    code = "job_snoozed"

    def __init__(self, seconds: float) -> None:
        super().__init__(f"snoozed for {seconds} s")
        self.seconds = seconds


class FailJobError(JobError):
    """End the job as failed, whatever attempts are left."""

    code = "job_failed"
