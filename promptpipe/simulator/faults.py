"""What can go wrong between us and Meta, as knobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from collections.abc import Callable


class Fault(BaseModel):
    """Something that happens to a *share* of occasions, *times* more times (None: without end)."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    share: Annotated[float, Field(ge=0, le=1)] = 0.0
    times: Annotated[int, Field(ge=0)] | None = None

    def happens(self, random: Callable[[], float]) -> bool:
        """Whether it happens this time; counts it when it does."""
        if self.times == 0 or random() >= self.share:
            return False
        if self.times is not None:
            self.times -= 1
        return True


class Faults(BaseModel):
    """All knobs. Times are seconds."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    latency: Annotated[float, Field(ge=0, le=60)] = 0.0
    """Before a send request is answered."""
    errors: Fault = Fault()
    error_code: int = 131000
    """Meta's code of the errors that `errors` makes."""
    lost_answers: Fault = Fault()
    """The message is taken, and the connection breaks before the answer."""
    blank_errors: Fault = Fault()
    """The message is taken, and the answer is a bare HTTP 502."""
    duplicates: Fault = Fault()
    """A webhook is delivered twice."""
    disorder: Fault = Fault()
    """A webhook overtakes, or is overtaken by, its neighbours."""
    lost_statuses: Fault = Fault()
    """A delivery status never comes."""
    status_delay: Annotated[float, Field(ge=0, le=3600)] = 0.1
    """Between one delivery status and the next."""
    statuses: tuple[Literal["sent", "delivered", "read", "failed"], ...] = ("sent", "delivered", "read")
    """The delivery statuses of a message, in order."""
