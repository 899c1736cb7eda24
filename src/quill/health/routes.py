"""Routes for clients that poll and for orchestrators."""

from fastapi import APIRouter, Depends, Request

from quill.access.guards import Public
from quill.edge.inputs import refuse_unknown_query
from quill.edge.problems import answers
from quill.edge.routing import operation_id
from quill.errors import DatabaseUnavailable, ServerStopping
from quill.health.schemas import HealthOut, ProbeOut
from quill.health.service import HealthMonitor

router = APIRouter(
    generate_unique_id_function=operation_id,
    prefix="/api/health",
    tags=["health"],
    dependencies=[Depends(refuse_unknown_query), Depends(Public("says only which part is out"))],
)


def monitor_of(request: Request) -> HealthMonitor:
    """Return this process's monitor."""
    monitor: HealthMonitor = request.app.state.health
    return monitor


@router.get("")
async def health_check(request: Request) -> HealthOut:
    """Return how every part is. Always 200: read the body."""
    return await monitor_of(request).check()


@router.get("/live")
async def health_live() -> ProbeOut:
    """Answer while the process runs at all."""
    return ProbeOut(status="alive")


@router.get("/ready", responses=answers(DatabaseUnavailable, ServerStopping))
async def health_ready(request: Request) -> ProbeOut:
    """Answer 200 while the application database answers, 503 when requests had better go elsewhere."""
    if request.app.state.stopping.has_begun:
        raise ServerStopping
    if not await monitor_of(request).is_ready():
        raise DatabaseUnavailable
    return ProbeOut(status="ready")
