"""A gRPC client on Trio, for the admin commands and for other services.

::

    async with open_channel("127.0.0.1:50051", token="...") as channel:
        jobs = v1.JobServiceStub(channel)
        answer = await jobs.get_job(v1.GetJobRequest(job_id="..."), timeout=5)

The generated stubs are `v1.…Stub`; what goes wrong is a `grpclib.exceptions.GRPCError` with its status.
"""

from __future__ import annotations

from promptpipe.client.channel import client_tls, open_channel
from promptpipe.rpc.pb.google.protobuf import Struct
from promptpipe.rpc.pb.promptpipe import v1

__all__ = ["Struct", "client_tls", "open_channel", "v1"]
