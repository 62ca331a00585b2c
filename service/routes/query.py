"""POST /v1/indexes/{index}/query: the one question that Proponent exists for."""

from collections.abc import Sequence
from typing import Annotated, Any

import orjson
from asgi_correlation_id import correlation_id
from fastapi import APIRouter, Depends, Response

from indexer import Filter, GivenExample, Hit, KnownExample, Question
from indexer.errors import InputFormatError, QuestionError
from service.engine import Answer, Engine
from service.questions import FilterIn, KnownExampleIn, QueryRequest
from service.routes import engine_of, media_url, settings_of
from service.schemas import QueryAnswer
from service.settings import Settings

router = APIRouter(prefix="/v1/indexes/{index}", tags=["query"])


@router.post("/query", operation_id="queryInfluence", response_model=QueryAnswer)
async def query_influence(
    index: str,
    body: QueryRequest,
    engine: Annotated[Engine, Depends(engine_of)],
    settings: Annotated[Settings, Depends(settings_of)],
) -> Response:
    """The training examples that made the model say that: proponents and opponents of its loss."""
    modality = engine.version(index).manifest.task.input["modality"]
    answer = await engine.query(index, _question(body, modality, settings.max_k))
    return _response(answer, body)


def _question(body: QueryRequest, modality: str, max_k: int) -> Question:
    """Turn a request into a question.

    Raises:
        QuestionError: k is over the limit.
        InputFormatError: the index takes another modality.
    """
    if body.k > max_k:
        raise QuestionError(f"k: expected at most {max_k} (max_k)")
    given = body.example
    if isinstance(given, KnownExampleIn):
        example: KnownExample | GivenExample = KnownExample(given.split, given.id)
    elif given.modality == modality:
        example = GivenExample(given.model_dump())
    else:
        raise InputFormatError(f"this index takes examples of modality {modality!r} or 'id'")
    return Question(example, body.label, body.target, body.k, body.explain.quantity, body.view, _filter(body.filter))


def _filter(given: FilterIn | None) -> Filter | None:
    if given is None:
        return None
    bounds = given.self_influence
    return Filter(given.labels, given.ids, given.exclude_ids, bounds.least, bounds.most)


def _response(answer: Answer, body: QueryRequest) -> Response:
    """Write bytes once: validating an answer that we made ourselves would double the time of a large one."""
    ranking, facts = answer.ranking, answer.ranking.query
    timing = {"queue_ms": answer.queue_ms} | {f"{stage}_ms": ms for stage, ms in ranking.milliseconds.items()}
    timing["total_ms"] += answer.queue_ms
    content: dict[str, Any] = {
        "id": correlation_id.get() or "",
        "index": {"name": ranking.index, "version": ranking.version, "fingerprint": ranking.fingerprint},
        "query": {
            "label": facts.label,
            "label_source": facts.label_source,
            "predicted": facts.predicted,
            "probabilities": dict(facts.probabilities),
            "loss": facts.loss,
        },
        "score": {"method": ranking.method, "explain": ranking.explain, "view": ranking.view, "exact": ranking.exact},
        "search": {"exhaustive": ranking.exhaustive},
    }
    for direction, hits in (("proponents", ranking.proponents), ("opponents", ranking.opponents)):
        if direction in body.directions:
            content[direction] = _hits(ranking.index, hits, body.include)
    content |= {"timing": {stage: round(ms, 3) for stage, ms in timing.items()}, "warnings": list(ranking.warnings)}
    return Response(orjson.dumps(content), media_type="application/json")


def _hits(index: str, hits: Sequence[Hit], include: Sequence[str]) -> list[dict[str, Any]]:
    rows = []
    for hit in hits:
        row: dict[str, Any] = {"rank": hit.rank, "split": hit.split, "id": hit.id, "label": hit.label}
        row |= {"score": hit.score, "percentile": hit.percentile, "self_influence": hit.self_influence}
        if "per_checkpoint" in include:
            row["per_checkpoint"] = hit.per_checkpoint
        if "media" in include:
            row["media_url"] = media_url(index, hit.split, hit.id)
        rows.append(row)
    return rows
