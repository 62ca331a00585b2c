"""What a method is. Everything else (store, search, service) is written once and does not know which it serves."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from indexer.gradients.at_checkpoints import ModelAtCheckpoints
from indexer.gradients.capture import Gradients
from indexer.index.code import Code

Batch = tuple[Tensor, Tensor]
Etas = Sequence[Mapping[str, float]]  # the weight of each checkpoint, for every parameter of the gradient by name
Asked = Sequence[Gradients]  # the gradients of queries at each checkpoint, in the form in which products cost least
Sample = Callable[[], Iterable[Batch]]  # training examples to fit on, batch after batch, the same each time


@dataclass(frozen=True, slots=True)
class Part:
    """A named slice of the vectors, usually one checkpoint: its slice product is its part of the score."""

    name: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class TrainRows:
    """What the index stores of a batch: vectors [b, m], and self-influence by part [b, c] where it is exact.

    scores: the exact ones of queries that were asked about in the same pass.
    """

    vectors: Float[Tensor, "b m"]
    self_influence: Float[Tensor, "b c"] | None
    scores: Float[Tensor, "b q"] | None = None


@dataclass(frozen=True, slots=True)
class Fitted:
    """What a method was fitted to be: tensors that the index keeps, and how its vectors are coded (None: float32)."""

    tensors: Mapping[str, Tensor]
    code: Code | None = None


@runtime_checkable
class Method(Protocol):
    """A method that is ready to make vectors."""

    @property
    def explains(self) -> frozenset[str]:
        """Quantities that query vectors can be made for: ``loss``."""

    @property
    def parts(self) -> tuple[Part, ...]:
        """The slices of a vector, in order, without gaps."""

    @property
    def exact_vectors(self) -> bool:
        """Whether products of the vectors are the exact score, and not an estimate of it."""

    @property
    def parameters(self) -> Mapping[str, Any]:
        """What `MethodKind.open` needs to make this method again, every default written out."""

    @property
    def random_check(self) -> Mapping[str, list[float]]:
        """The first eight numbers of each random matrix, kept in the manifest to prove that they can be drawn again."""

    def asked(self, queries: Batch) -> Asked | None:
        """Return what exact scores of queries need, or None where the method has no exact scores in a pass."""

    def train_rows(self, batch: Batch, asked: Asked | None = None) -> TrainRows:
        """Return what is stored of training examples, and their exact scores where somebody asked."""

    def query_vectors(self, batch: Batch) -> tuple[Float[Tensor, "q m"], Float[Tensor, "q c"]]:
        """Return the vectors of queries, and h at each checkpoint."""

    def exact(
        self, queries: Batch, train: Iterable[Batch]
    ) -> Iterable[tuple[Float[Tensor, "b q"], Float[Tensor, "b c"]]]:
        """Yield exact scores and self-influence by part for each batch of training examples."""


@runtime_checkable
class MethodKind(Protocol):
    """How a method is fitted when an index is built, and opened again when it is read."""

    @property
    def fitted_on_all_rows(self) -> bool:
        """Whether every training row has part in what is fitted, so that no row can be added without another fit."""

    def fit(
        self,
        model: ModelAtCheckpoints,
        etas: Etas,
        parameters: Mapping[str, Any],
        sample: Sample,
        step_sizes: Sequence[Mapping[str, Tensor]] | None,
    ) -> Fitted:
        """Return what the index must keep for the method.

        step_sizes: those of the optimizer at each checkpoint, by parameter; None where nobody asked for them.
        """

    def open(
        self,
        model: ModelAtCheckpoints,
        etas: Etas,
        parameters: Mapping[str, Any],
        fitted: Mapping[str, Tensor],
    ) -> Method:
        """Return the method, ready to make vectors."""
