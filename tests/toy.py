"""A method that is not symmetric, to show that build, store, search and ask know no method: train A g, query g.

g is the gradient of the last layer at the last checkpoint, A a fixed random matrix that is kept as the fitted tensor.
Register it before it is built or opened: ``monkeypatch.setitem(METHODS, "toy", ToyKind())``.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from indexer import BuildSpec, Task, build
from indexer.gradients.at_checkpoints import ModelAtCheckpoints
from indexer.methods.method import Asked, Batch, Etas, Fitted, Part, Sample, TrainRows


class Toy:
    """score(z, z') = <A g(z), g(z')>."""

    explains = frozenset({"loss"})
    exact_vectors = True
    random_check: Mapping[str, list[float]] = {}
    parameters: Mapping[str, Any] = {}

    def __init__(self, model: ModelAtCheckpoints, matrix: Tensor) -> None:
        self._model = model
        self._matrix = matrix

    @property
    def parts(self) -> tuple[Part, ...]:
        return (Part("last layer", 0, len(self._matrix)),)

    def asked(self, queries: Batch) -> None:
        return None

    def train_rows(self, batch: Batch, asked: Asked | None = None) -> TrainRows:
        return TrainRows(self._gradients(batch)[0] @ self._matrix.T, None)

    def query_vectors(self, batch: Batch) -> tuple[Tensor, Tensor]:
        gradients, losses = self._gradients(batch)
        return gradients, losses[:, None]

    def exact(self, queries: Batch, train: Iterable[Batch]) -> Iterator[tuple[Tensor, Tensor]]:
        asked, _ = self._gradients(queries)
        for batch in train:
            yield self.train_rows(batch).vectors @ asked.T, torch.zeros(len(batch[0]), 1)

    def _gradients(self, batch: Batch) -> tuple[Tensor, Tensor]:
        captured = self._model.at(len(self._model) - 1, batch)
        return captured.kept[self._model.layout.blocks[-1].name].dense().flatten(1), captured.loss


class ToyKind:
    """Draws A once, when the index is built."""

    fitted_on_all_rows = False

    def fit(
        self,
        model: ModelAtCheckpoints,
        etas: Etas,
        parameters: Mapping[str, Any],
        sample: Sample,
        step_sizes: Sequence[Mapping[str, Tensor]] | None,
    ) -> Fitted:
        size = model.layout.blocks[-1].size
        return Fitted({"matrix": torch.randn(size, size, generator=torch.Generator().manual_seed(0)) / size**0.5})

    def open(
        self,
        model: ModelAtCheckpoints,
        etas: Etas,
        parameters: Mapping[str, Any],
        fitted: Mapping[str, Tensor],
    ) -> Toy:
        return Toy(model, fitted["matrix"])


def toy_index(folder: Path, task: Task, run: Path) -> Path:
    """Build an index of the registered toy method into a new folder and return it."""
    return build(task, BuildSpec(run, method="toy", projection={}, batch_size=64), folder).folder
