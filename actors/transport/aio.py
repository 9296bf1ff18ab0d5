"""gRPC's asyncio engine, kept running for as long as this process lives."""

from __future__ import annotations

import grpc.aio

# It starts with the first channel or server and stops with the last, whenever that is collected: then it waits, on
# whatever thread that happens to be and for ever, for a poller that still has operations to report. So it never stops.
# Its poller is one daemon thread a process.
grpc.aio.init_grpc_aio()  # type: ignore[attr-defined]  # public, and unknown to the stubs
