"""Requests of the HTTP API, as they stand in the OpenAPI schema."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

_ONE = (  # a drawn 1: 28 x 28 pixels, grey, PNG
    "iVBORw0KGgoAAAANSUhEUgAAABwAAAAcCAAAAABXZoBIAAAAGklEQVR42mNgGNzg/39kHhM+paOSw0ty0AEAS0wCIQSUTbwAAAAASUVORK5CYII="
)


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class KnownExampleIn(_Request):
    """An example of the index's own data."""

    modality: Literal["id"]
    split: Literal["train", "test"]
    id: str = Field(max_length=200)


class ImageIn(_Request):
    """A PNG or JPEG in base64, of the size that the index takes."""

    modality: Literal["image"]
    data: str


class ExplainLoss(_Request):
    """Explain the loss at the label."""

    quantity: Literal["loss"]


Direction = Literal["proponents", "opponents"]
Ids = Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=10_000)]


class Range(_Request):
    """Bounds, both included; null leaves a side open."""

    least: float | None = Field(default=None, allow_inf_nan=False)
    most: float | None = Field(default=None, allow_inf_nan=False)


class FilterIn(_Request):
    """Which training examples an answer may name: those that pass every part that is given."""

    labels: Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=1_000)] | None = Field(
        default=None, description="only examples with one of these labels"
    )
    ids: Ids | None = Field(default=None, description="only these training ids")
    exclude_ids: Ids = Field(default=[], description="without these training ids")
    self_influence: Range = Field(default=Range(), description="only within these bounds, over all checkpoints")


class QueryRequest(_Request):
    """Which training examples made the model say that?"""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={
            "examples": [
                {"example": {"modality": "id", "split": "test", "id": "17"}, "label": "5", "k": 10},
                {"example": {"modality": "image", "data": _ONE}, "k": 10},
                {"example": {"modality": "id", "split": "test", "id": "17"}, "filter": {"labels": ["3", "5"]}},
            ]
        },
    )

    example: Annotated[KnownExampleIn | ImageIn, Field(discriminator="modality")]
    label: str | None = Field(default=None, max_length=200, description="explain this label; else the predicted one")
    target: float | None = Field(default=None, allow_inf_nan=False, description="the same for a regression")
    explain: ExplainLoss = ExplainLoss(quantity="loss")
    view: Literal["dot", "normalised"] = Field(
        default="dot",
        description="order by the score, or by the score over the norm of the training example's gradient",
    )
    filter: FilterIn | None = Field(default=None, description="which training examples may be named; null for all")
    k: int = Field(
        default=10, ge=1, description="hits in each direction, fewer where fewer pass; the limit is in `limits`"
    )
    directions: list[Direction] = Field(default=["proponents", "opponents"], min_length=1, max_length=2)
    include: list[Literal["per_checkpoint", "media"]] = Field(default=["per_checkpoint", "media"], max_length=2)


class ExampleListing(_Request):
    """Which examples are listed, in which order, and where a page of them begins and ends."""

    split: Literal["train", "test"] | None = Field(
        default=None, description="`test` unless told otherwise, in the order `self_influence` always `train`"
    )
    label: str | None = Field(default=None, max_length=200, description="only examples with this label")
    order: Literal["row", "self_influence"] = Field(
        default="row", description="as in the data set, or highest self-influence first: wrong labels come early"
    )
    checkpoint: int | None = Field(
        default=None,
        ge=1,
        description="order by the self-influence of this checkpoint, counted from 1; else by its sum",
    )
    limit: int | None = Field(default=None, ge=1, description="at most the index's `limits.page_size`")
    cursor: str | None = Field(
        default=None, max_length=100, description="`next_cursor` of the page before, asked for with the same arguments"
    )
