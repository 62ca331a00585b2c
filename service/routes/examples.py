"""The examples of an index: pages, single ones, and what a person is shown of them."""

import base64
import binascii
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Response

from indexer.errors import QuestionError
from indexer.index.examples import Example
from service.engine import Engine
from service.routes import engine_of, media_url, settings_of
from service.schemas import ExampleOut, ExamplePage
from service.settings import Settings

router = APIRouter(prefix="/v1/indexes/{index}/examples", tags=["examples"])

Split = Literal["train", "test"]


@router.get("", operation_id="listExamples", response_model=ExamplePage)
def list_examples(
    index: str,
    engine: Annotated[Engine, Depends(engine_of)],
    settings: Annotated[Settings, Depends(settings_of)],
    split: Split = "test",
    limit: Annotated[int | None, Query(ge=1, description="at most the index's limits.page_size")] = None,
    cursor: Annotated[str | None, Query(max_length=100)] = None,
) -> ExamplePage:
    """One page of a split, in the order of the data set."""
    start, count = _start(cursor), _count(limit, settings.page_size)
    found = engine.examples(index).listing(split, start=start, count=count + 1)
    more = len(found) > count
    return ExamplePage(
        examples=[_example(index, example) for example in found[:count]],
        next_cursor=_cursor(start + count) if more else None,
    )


@router.get("/{split}/{id}", operation_id="getExample", response_model=ExampleOut)
def one_example(index: str, split: Split, id: str, engine: Annotated[Engine, Depends(engine_of)]) -> ExampleOut:
    """One example."""
    return _example(index, engine.examples(index).find(split, id))


@router.get(
    "/{split}/{id}/media",
    operation_id="getExampleMedia",
    response_class=Response,
    responses={200: {"content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}}},
)
def example_media(index: str, split: Split, id: str, engine: Annotated[Engine, Depends(engine_of)]) -> Response:
    """What a person is shown of an example."""
    preview = engine.examples(index).preview(split, id)
    headers = {"Cache-Control": "private, max-age=3600", "X-Content-Type-Options": "nosniff"}
    return Response(preview.data, media_type=preview.media_type, headers=headers)


def _example(index: str, example: Example) -> ExampleOut:
    return ExampleOut(
        split=example.split,
        id=example.id,
        label=example.label,
        self_influence=sum(example.self_influence) if example.self_influence else None,
        media_url=media_url(index, example.split, example.id),
    )


def _cursor(start: int) -> str:
    return base64.urlsafe_b64encode(f"start:{start}".encode()).decode()


def _count(limit: int | None, page_size: int) -> int:
    """Read the length of a page.

    Raises:
        QuestionError: it is over the limit.
    """
    if limit is not None and limit > page_size:
        raise QuestionError(f"limit: expected at most {page_size} (page_size)")
    return limit or min(50, page_size)


def _start(cursor: str | None) -> int:
    """Read a cursor.

    Raises:
        QuestionError: it is not one of ours.
    """
    if cursor is None:
        return 0
    try:
        kind, _, number = base64.urlsafe_b64decode(cursor.encode()).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError, UnicodeEncodeError):
        kind, number = "", ""
    if kind != "start" or not number.isascii() or not number.isdigit() or int(number) >= 2**63:
        raise QuestionError("cursor: expected the next_cursor of an earlier page, or none for the first page")
    return int(number)
