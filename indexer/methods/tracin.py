"""TracInCP (TracIn, appendix C): score(z, z') = sum over checkpoints i of eta_i <grad l(w_i, z), grad h(w_i, z')>.

Both vectors are the concatenation over checkpoints of sqrt(eta_i) P_i g_i, so that their inner product is the score:
exact with P = identity, and unbiased for random P. Never the sum over checkpoints: that is another number.
Self-influence at checkpoint i is eta_i ‖g_i(z)‖², from the factors, exact under every projection.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from indexer.errors import BuildError
from indexer.gradients.at_checkpoints import ModelAtCheckpoints
from indexer.gradients.block import BlockGradient
from indexer.gradients.capture import Gradients
from indexer.methods.method import Batch, Part, TrainRows
from indexer.projection.identity import Identity
from indexer.projection.projections import Projection, describe, make_projection, project

_Kept = tuple[Tensor, Tensor]  # a block's piece of the vectors, and its squared norms


class TracIn:
    """TracInCP over the checkpoints of a model; the one symmetric method."""

    def __init__(self, model: ModelAtCheckpoints, etas: tuple[float, ...], projection: Projection) -> None:
        self._model = model
        self._etas = etas
        self._projection = projection
        drawn = [projection.matrices(i) for i in range(len(model))]
        self._matrices = {name: torch.stack([m[name].to(model.dtype) for m in drawn]) for name in drawn[0]}
        self._scale = torch.tensor(etas, dtype=model.dtype).sqrt()

    @property
    def explains(self) -> frozenset[str]:
        """``loss``."""
        return frozenset({"loss"})

    @property
    def parts(self) -> tuple[Part, ...]:
        """One slice a checkpoint."""
        d = self._projection.width
        return tuple(Part(f"checkpoint {i + 1}", i * d, (i + 1) * d) for i in range(len(self._model)))

    @property
    def exact_vectors(self) -> bool:
        """With the identity as projection."""
        return isinstance(self._projection, Identity)

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The projection."""
        return {"projection": describe(self._projection)}

    @property
    def random_check(self) -> Mapping[str, list[float]]:
        """The head of every random matrix, by ``checkpoint/name``."""
        return {
            f"{i}/{name}": stack[i].flatten()[:8].tolist()
            for name, stack in self._matrices.items()
            for i in range(len(self._model))
        }

    def train_rows(self, batch: Batch) -> TrainRows:
        """One capture a checkpoint gives the vector and the exact self-influence."""
        vectors, norms = [], []
        for i, eta in enumerate(self._etas):
            matrices = {name: stack[i] for name, stack in self._matrices.items()}

            def keep(name: str, gradient: BlockGradient, matrices: Mapping[str, Tensor] = matrices) -> _Kept:
                made = [(self._projection.piece(name, part, matrices), part.square_norm()) for part in gradient.parts()]
                return torch.cat([piece for piece, _ in made]), torch.cat([norm for _, norm in made])

            kept = self._model.each(i, batch, keep).kept
            pieces = {name: piece for name, (piece, _) in kept.items()}
            vectors.append(self._scale[i] * self._projection.join(pieces))
            norms.append(eta * torch.stack([norm for _, norm in kept.values()]).sum(0))
        return TrainRows(torch.cat(vectors, dim=1), torch.stack(norms, dim=1))

    def query_vectors(self, batch: Batch) -> tuple[Float[Tensor, "q m"], Float[Tensor, "q c"]]:
        """All checkpoints in one vectorised pass."""
        vectors, values = self._model.at_all(batch, partial(project, self._projection), self._matrices)
        scaled = vectors * self._scale[:, None, None]
        return scaled.transpose(0, 1).flatten(1), values.T

    def exact(
        self, queries: Batch, train: Iterable[Batch]
    ) -> Iterator[tuple[Float[Tensor, "b q"], Float[Tensor, "b c"]]]:
        """Factor products, nothing projected, nothing stored but the factors of the queries."""
        asked = [
            {name: gradient.settled() for name, gradient in self._model.at(i, queries).kept.items()}
            for i in range(len(self._model))
        ]
        for batch in train:
            scores = torch.zeros(len(batch[0]), len(queries[0]), dtype=self._model.dtype)
            norms = []
            for i, eta in enumerate(self._etas):
                gradients = self._model.at(i, batch).kept
                for name, gradient in gradients.items():
                    scores += eta * gradient.dot(asked[i][name])
                norms.append(eta * _square_norm(gradients))
            yield scores, torch.stack(norms, dim=1)


class TracInKind:
    """Fits nothing: its projections need no data."""

    def fit(
        self, model: ModelAtCheckpoints, parameters: Mapping[str, Any], batches: Iterable[Batch]
    ) -> dict[str, Tensor]:
        """Return no tensors."""
        return {}

    def open(
        self,
        model: ModelAtCheckpoints,
        etas: tuple[float, ...],
        parameters: Mapping[str, Any],
        fitted: Mapping[str, Tensor],
    ) -> TracIn:
        """Return TracInCP with the projection that the parameters name.

        Raises:
            BuildError: the parameters name no projection.
        """
        if not isinstance(parameters.get("projection"), Mapping):
            raise BuildError("method 'tracin': expected a projection, such as {'name': 'rank1', 'numbers': 1024}")
        return TracIn(model, etas, make_projection(model.layout, parameters["projection"]))


def _square_norm(gradients: Gradients) -> Float[Tensor, " b"]:
    return torch.stack([gradient.square_norm() for gradient in gradients.values()]).sum(0)
