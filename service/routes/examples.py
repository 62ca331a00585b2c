"""The examples of an index: pages by row or by self-influence, single ones, and what a person is shown of them."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Response

from indexer.errors import QuestionError
from indexer.index.examples import Example, Examples
from service.cursors import Listing, read_row_cursor, read_value_cursor, row_cursor, value_cursor
from service.engine import Engine
from service.questions import ExampleListing
from service.routes import engine_of, media_url, settings_of
from service.schemas import ExampleOut, ExamplePage
from service.settings import Settings

router = APIRouter(prefix="/v1/indexes/{index}/examples", tags=["examples"])

Split = Literal["train", "test"]


@router.get("", operation_id="listExamples", response_model=ExamplePage)
def list_examples(
    index: str,
    asked: Annotated[ExampleListing, Query()],
    engine: Annotated[Engine, Depends(engine_of)],
    settings: Annotated[Settings, Depends(settings_of)],
) -> ExamplePage:
    """One page of a split: in the order of the data set, or of training examples by self-influence, highest first."""
    examples, listing = engine.examples(index), _listing(asked)
    if listing.label is not None:
        examples.check_label(listing.label, engine.version(index).manifest.task.labels)
    page = _by_row if listing.order == "row" else _by_self_influence
    found, cursor = page(examples, listing, asked.cursor, _count(asked.limit, settings.page_size))
    return ExamplePage(examples=[_example(index, example) for example in found], next_cursor=cursor)


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
        self_influence=example.total,
        self_influence_per_checkpoint=list(example.self_influence) or None,
        media_url=media_url(index, example.split, example.id),
    )


def _listing(asked: ExampleListing) -> Listing:
    """Say what is listed.

    Raises:
        QuestionError: an argument does not go with the order.
    """
    if asked.order == "row":
        if asked.checkpoint is not None:
            raise QuestionError("checkpoint: it orders by self-influence; expected order=self_influence with it")
        return Listing(asked.split or "test", asked.order, asked.label, None)
    if asked.split == "test":
        raise QuestionError("order: only training examples have self-influence; expected split=train with it")
    return Listing("train", asked.order, asked.label, asked.checkpoint)


def _by_row(examples: Examples, listing: Listing, cursor: str | None, count: int) -> tuple[list[Example], str | None]:
    start = read_row_cursor(listing, cursor)
    found = examples.listing(listing.split, start=start, count=count + 1, label=listing.label)
    return found[:count], row_cursor(listing, start + count) if len(found) > count else None


def _by_self_influence(
    examples: Examples, listing: Listing, cursor: str | None, count: int
) -> tuple[list[Example], str | None]:
    part, after = examples.part_of(listing.checkpoint), read_value_cursor(listing, cursor)
    ranked = list(examples.self_influence(part=part, label=listing.label, after=after, count=count + 1))
    found = [example for example, _ in ranked[:count]]
    if len(ranked) <= count:
        return found, None
    last, value = ranked[count - 1]
    assert last.position is not None
    return found, value_cursor(listing, (value, last.position))


def _count(limit: int | None, page_size: int) -> int:
    """Read the length of a page.

    Raises:
        QuestionError: it is over the limit.
    """
    if limit is not None and limit > page_size:
        raise QuestionError(f"limit: expected at most {page_size} (page_size)")
    return limit or min(50, page_size)
