"""Answers of the HTTP API, as they stand in the OpenAPI schema."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from indexer.index.card import CardEntry


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


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
    """Whether every training example that may be named was compared, or is proved to be no better."""

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
    """Everything about one index that a client needs.

    parent, edit: the version that this one was made from, and how; null for one that was built. card_version: the
    version that the card was measured on, where that is an earlier one.
    """

    width: int
    parameters: dict[str, Any]
    checkpoints: list[CheckpointOut]
    eta_convention: str
    choice: dict[str, Any] | None
    parent: str | None
    edit: str | None
    card: CardOut | None
    card_version: str | None
    input: dict[str, Any]
    labels: list[str] | None
    explains: list[str]
    limits: Limits


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
