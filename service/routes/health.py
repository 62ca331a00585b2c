"""Probes: /livez says that the process lives, /readyz that every index is verified, open and warm."""

from fastapi import APIRouter

from service.schemas import Health

router = APIRouter(tags=["health"])


@router.get("/livez", operation_id="getLiveness", response_model=Health)
async def live() -> Health:
    """The process lives; never touches a model."""
    return Health(status="ok")


@router.get("/readyz", operation_id="getReadiness", response_model=Health)
async def ready() -> Health:
    """Every index is verified and has answered a first question: the server listens only after that."""
    return Health(status="ok")
