"""`RecoveryService`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptpipe.rpc import convert
from promptpipe.rpc.paging import next_page_token, page_request
from promptpipe.rpc.pb.promptpipe import v1

if TYPE_CHECKING:
    from promptpipe.services.recoveries import Recoveries


class RecoveryHandlers(v1.RecoveryServiceBase):
    """See `recovery.proto`."""

    def __init__(self, recoveries: Recoveries) -> None:
        self._recoveries = recoveries

    async def run_recovery(self, message: v1.RunRecoveryRequest) -> v1.RunRecoveryResponse:
        """Recover everything now."""
        del message
        return v1.RunRecoveryResponse(report=convert.report(await self._recoveries.run()))

    async def get_last_report(self, message: v1.GetLastReportRequest) -> v1.GetLastReportResponse:
        """Return the newest report."""
        del message
        return v1.GetLastReportResponse(report=convert.report(await self._recoveries.last_report()))

    async def list_reports(self, message: v1.ListReportsRequest) -> v1.ListReportsResponse:
        """List reports."""
        page = await self._recoveries.reports(page_request(message))
        return v1.ListReportsResponse(
            reports=[convert.report(report) for report in page.items], next_page_token=next_page_token(message, page)
        )
