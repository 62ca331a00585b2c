"""Requests and answers of the HTTP API, as they stand in the OpenAPI schema."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from indexer.index.card import CardEntry

_ONE = (  # a drawn 1: 28 x 28 pixels, grey, PNG
    "iVBORw0KGgoAAAANSUhEUgAAABwAAAAcCAAAAABXZoBIAAAAGklEQVR42mNgGNzg/39kHhM+paOSw0ty0AEAS0wCIQSUTbwAAAAASUVORK5CYII="
)


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


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


class QueryRequest(_Request):
    """Which training examples made the model say that?"""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={
            "examples": [
                {"example": {"modality": "id", "split": "test", "id": "17"}, "label": "5", "k": 10},
                {"example": {"modality": "image", "data": _ONE}, "k": 10},
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
    k: int = Field(default=10, ge=1, description="hits in each direction; the limit is in the index's `limits`")
    directions: list[Direction] = Field(default=["proponents", "opponents"], min_length=1, max_length=2)
    include: list[Literal["per_checkpoint", "media"]] = Field(default=["per_checkpoint", "media"], max_length=2)


class IndexRef(_Answer):
    """Which version of which index answered."""

    name: str
    version: str
    fingerprint: str


class QueryOut(_Answer):
    """What the model says of the query at its last checkpoint."""

    label: str
    label_source: Literal["given", "predicted", "own"]
    predicted: str | None
    probabilities: dict[str, float]
    loss: float


class ScoreOut(_Answer):
    """How the scores were made; `exact` is false where they are estimates from projections."""

    method: str
    explain: str
    view: Literal["dot", "normalised"]
    exact: bool


class SearchOut(_Answer):
    """Whether every stored vector was compared."""

    exhaustive: bool


class HitOut(_Answer):
    """One training example. A positive score: training on it lowered the query's loss.

    percentile: how many percent of a fixed sample of the index's scores (its card's) lie below; null without a
    card, and in the normalised view.
    """

    rank: int
    split: str
    id: str
    label: str
    score: float
    percentile: float | None
    self_influence: float | None
    per_checkpoint: list[float] | None = None
    media_url: str | None = None


class TimingOut(_Answer):
    """Milliseconds by stage."""

    queue_ms: float
    decode_ms: float
    gradients_ms: float
    search_ms: float
    fetch_ms: float
    total_ms: float


class QueryAnswer(_Answer):
    """Proponents from the highest score down, opponents from the lowest up; ties by id."""

    id: str
    index: IndexRef
    query: QueryOut
    score: ScoreOut
    search: SearchOut
    proponents: list[HitOut] | None = None
    opponents: list[HitOut] | None = None
    timing: TimingOut
    warnings: list[str]


class IndexSummary(IndexRef):
    """One served index."""

    method: str
    rows: int
    splits: dict[str, int]


class IndexList(_Answer):
    """All served indexes."""

    indexes: list[IndexSummary]


class RateOut(_Answer):
    """Parameters whose part of the score has a weight of its own."""

    parameters: list[str]
    eta: float


class CheckpointOut(_Answer):
    """One checkpoint, eta being the weight of its part of the score; rates: by parameter, where they differ."""

    file: str
    learning_rate: float | None
    eta: float
    rates: list[RateOut]
    step: int | None
    epoch: float | None
    train_loss: float | None


class CardOut(CardEntry):
    """How well the index's scores agree with exact ones: as its manifest has it, intervals over queries.

    source: the split of the queries; training rows leave themselves out. Null are a correlation where all scores are
    equal and an interval of a single query. bytes_per_example: all that a query reads, over rows; bases apart.
    """


class Limits(_Answer):
    """What a request may ask for."""

    max_k: int
    max_body_bytes: int
    page_size: int


class IndexDetail(IndexSummary):
    """Everything about one index that a client needs."""

    width: int
    parameters: dict[str, Any]
    checkpoints: list[CheckpointOut]
    eta_convention: str
    choice: dict[str, Any] | None
    card: CardOut | None
    input: dict[str, Any]
    labels: list[str] | None
    explains: list[str]
    limits: Limits


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


class ExampleOut(_Answer):
    """One example; only training examples have self-influence: its sum, and its parts by checkpoint."""

    split: str
    id: str
    label: str
    self_influence: float | None
    self_influence_per_checkpoint: list[float] | None
    media_url: str


class ExamplePage(_Answer):
    """A page of examples; ask on with `next_cursor`."""

    examples: list[ExampleOut]
    next_cursor: str | None


class Health(_Answer):
    """Alive, or ready."""

    status: Literal["ok"]


class ProblemItem(_Answer):
    """One thing that is wrong with a request, and where."""

    loc: list[str | int]
    msg: str
    type: str


class Problem(_Answer):
    """RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str | None
    errors: list[ProblemItem]
