"""What is asked and what is answered, as values."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from indexer.ask.filters import Filter
from indexer.index.search.candidates import View


@dataclass(frozen=True, slots=True)
class KnownExample:
    """An example of the task's own data, by name."""

    split: str
    id: str


@dataclass(frozen=True, slots=True)
class GivenExample:
    """An input in the codec's JSON, such as {"data": "<base64 PNG>"} for an image."""

    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Question:
    """Which training examples made the model's loss on this example what it is?

    view: ``dot`` orders by the score; ``normalised`` by the score over ‖g(z)‖, the norm of the training example's
    gradient: examples that pull hard on everything lose their lead. For one query it is the order of the cosine.
    label: explain the loss at this label; None takes the label that the model predicts.
    target: the same for a regression, where it must be given. A sequence model is asked about known examples, at their
    own targets.
    filter: which training examples may be named; None for all.
    """

    example: KnownExample | GivenExample
    label: str | None = None
    target: float | None = None
    k: int = 10
    explain: str = "loss"
    view: View = "dot"
    filter: Filter | None = None


@dataclass(frozen=True, slots=True)
class QueryFacts:
    """What the model says of the query at its last checkpoint, and which label was explained."""

    label: str
    label_source: str
    predicted: str | None
    probabilities: Mapping[str, float]
    loss: float


@dataclass(frozen=True, slots=True)
class Hit:
    """One training example and its score; the parts by checkpoint add up to the score.

    In the normalised view both are divided by the norm of the example's gradient.
    percentile: how many percent of the index card's reference scores lie below; None where the index has no card, and
    in the normalised view, which it has no scores of.
    """

    rank: int
    split: str
    id: str
    label: str
    score: float
    per_checkpoint: tuple[float, ...]
    self_influence: float | None
    percentile: float | None = None


@dataclass(frozen=True, slots=True)
class Ranking:
    """Proponents from the highest score down, opponents from the lowest up, ties by id.

    Fewer than k where no more training examples may be named.
    exhaustive: no training example that may be named was left out of the comparison.
    warnings: what a reader must know of the scores, such as an optimizer that TracInCP does not account for.
    """

    index: str
    version: str
    fingerprint: str
    method: str
    explain: str
    exact: bool
    exhaustive: bool
    query: QueryFacts
    proponents: tuple[Hit, ...]
    opponents: tuple[Hit, ...]
    milliseconds: Mapping[str, float]
    warnings: tuple[str, ...] = ()
    view: View = "dot"
