"""What is served: GET /v1/indexes and GET /v1/indexes/{index}."""

from typing import Annotated

from fastapi import APIRouter, Depends

from indexer.index.versions import IndexVersion
from service.engine import Engine
from service.routes import engine_of, settings_of
from service.schemas import CardOut, CheckpointOut, IndexDetail, IndexList, IndexSummary, Limits
from service.settings import Settings

router = APIRouter(prefix="/v1/indexes", tags=["indexes"])


@router.get("", operation_id="listIndexes", response_model=IndexList)
async def list_indexes(engine: Annotated[Engine, Depends(engine_of)]) -> IndexList:
    """All served indexes."""
    return IndexList(indexes=[_summary(engine.version(name)) for name in engine.names()])


@router.get("/{index}", operation_id="getIndex", response_model=IndexDetail)
async def index_detail(
    index: str,
    engine: Annotated[Engine, Depends(engine_of)],
    settings: Annotated[Settings, Depends(settings_of)],
) -> IndexDetail:
    """One index: method, checkpoints, input, labels, limits, and its card."""
    version = engine.version(index)
    manifest = version.manifest
    return IndexDetail(
        **_summary(version).model_dump(),
        width=manifest.vectors.width,
        parameters=manifest.method.parameters,
        checkpoints=[
            CheckpointOut(**entry.model_dump(exclude={"object", "adapter"})) for entry in manifest.checkpoints
        ],
        eta_convention=manifest.eta_convention,
        choice=manifest.choice,
        parent=manifest.parent,
        edit=manifest.edit,
        card=None if manifest.card is None else CardOut(**manifest.card.model_dump()),
        card_version=manifest.card_version,
        input=manifest.task.input,
        labels=manifest.task.labels,
        explains=engine.explains(index),
        limits=Limits(max_k=settings.max_k, max_body_bytes=settings.max_body_bytes, page_size=settings.page_size),
    )


def _summary(version: IndexVersion) -> IndexSummary:
    return IndexSummary(
        name=version.name,
        version=version.version,
        fingerprint=version.fingerprint,
        method=version.manifest.method.name,
        rows=version.manifest.rows,
        splits=version.manifest.splits,
    )
