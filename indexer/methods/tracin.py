"""TracInCP (TracIn, appendix C): score(z, z') = sum over checkpoints i of eta_i <grad l(w_i, z), grad h(w_i, z')>.

Both vectors are the concatenation over checkpoints of sqrt(eta_i) P_i g_i, so that their inner product is the score:
exact with P = identity, and unbiased for random P. Never the sum over checkpoints: that is another number.
Self-influence at checkpoint i is eta_i ‖g_i(z)‖², from the factors, exact under every projection.
Parameters that the optimizer steps at rates of their own have their own eta_i: it stands before their part of the sum.

With a preconditioner every gradient is first multiplied, entry by entry, by the square root of the optimizer's step
sizes D_i, on both sides: the score is then the sum of eta_i <grad l(w_i, z), D_i grad h(w_i, z')>.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from indexer.gradients.at_checkpoints import ModelAtCheckpoints
from indexer.gradients.block import BlockGradient, ScaledGradient
from indexer.gradients.capture import Gradients
from indexer.gradients.layout import Layout
from indexer.methods.method import Asked, Batch, Etas, Part, TrainRows
from indexer.projection.identity import Identity
from indexer.projection.pca import Pca
from indexer.projection.projections import Projection, describe, project

_SCALE = "/scale"  # after a block's name, among the tensors of a checkpoint
_ROOT = "/root of eta"


class TracIn:
    """TracInCP over the checkpoints of a model; the one symmetric method.

    scales: {block: [c, m, n]}, the square roots of step sizes; none without a preconditioner.
    """

    def __init__(
        self,
        model: ModelAtCheckpoints,
        etas: Etas,
        projection: Projection,
        scales: Mapping[str, Tensor] | None = None,
    ) -> None:
        self._model = model
        self._projection = projection
        self._etas = {block.name: [float(eta[block.parameters[0]]) for eta in etas] for block in model.layout.blocks}
        drawn = [projection.matrices(i) for i in range(len(model))]
        self._drawn = {name: torch.stack([matrices[name] for matrices in drawn]) for name in drawn[0]}
        self._scaled = scales is not None
        entrywise = _with_rates_within(model.layout, etas, scales or {})
        roots = {name: torch.tensor(rates, dtype=torch.float64).sqrt() for name, rates in self._etas.items()}
        tensors = (
            self._drawn
            | {f"{name}{_SCALE}": scale for name, scale in entrywise.items()}
            | {f"{name}{_ROOT}": root for name, root in roots.items()}
        )
        self._tensors = {name: model.cast(tensor) for name, tensor in tensors.items()}

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
        """The projection, and the preconditioner where there is one."""
        return {"projection": describe(self._projection)} | ({"preconditioner": "adam"} if self._scaled else {})

    @property
    def random_check(self) -> Mapping[str, list[float]]:
        """The head of every random matrix, by ``checkpoint/name``; nothing is drawn anew of bases that were fitted."""
        return (
            {}
            if isinstance(self._projection, Pca)
            else {
                f"{i}/{name}": stack[i].flatten()[:8].tolist()
                for name, stack in self._drawn.items()
                for i in range(len(self._model))
            }
        )

    def gradients(self, checkpoint: int, batch: Batch) -> Gradients:
        """Return the gradients at a checkpoint, preconditioned, without eta."""
        here = self._here(checkpoint)
        found = self._model.at(checkpoint, batch).kept
        return {name: self._preconditioned(name, gradient, here) for name, gradient in found.items()}

    def roots(self, checkpoint: int) -> dict[str, Tensor]:
        """Return the root of eta of every block."""
        return {name: self._tensors[f"{name}{_ROOT}"][checkpoint] for name in self._etas}

    def asked(self, queries: Batch) -> list[Gradients]:
        """The queries' gradients, each in the form in which many products with it cost least."""
        return [
            {name: gradient.settled() for name, gradient in self.gradients(i, queries).items()}
            for i in range(len(self._model))
        ]

    def train_rows(self, batch: Batch, asked: Asked | None = None) -> TrainRows:
        """One capture a checkpoint gives the vector, the exact self-influence and the exact scores."""
        vectors, norms, scores = [], [], []
        for i in range(len(self._model)):
            here, queries = self._here(i), None if asked is None else asked[i]

            def keep(
                name: str,
                gradient: BlockGradient,
                here: Mapping[str, Tensor] = here,
                queries: Gradients | None = queries,
            ) -> list[tuple[Tensor, ...]]:
                return [
                    (self._projection.piece(name, part, here), part.square_norm())
                    + (() if queries is None else (part.dot(queries[name]),))
                    for part in self._preconditioned(name, gradient, here).parts()
                ]

            parts = self._model.each(i, batch, keep).kept
            made = {name: [torch.cat(of) for of in zip(*found, strict=True)] for name, found in parts.items()}
            pieces = {name: here[f"{name}{_ROOT}"] * found[0] for name, found in made.items()}
            vectors.append(self._projection.join(pieces, here))
            norms.append(torch.stack([self._etas[name][i] * found[1] for name, found in made.items()]).sum(0))
            if asked is not None:
                scores.append(torch.stack([self._etas[name][i] * found[2] for name, found in made.items()]).sum(0))
        exact = torch.stack(scores).sum(0) if scores else None
        return TrainRows(torch.cat(vectors, dim=1), torch.stack(norms, dim=1), exact)

    def query_vectors(self, batch: Batch) -> tuple[Float[Tensor, "q m"], Float[Tensor, "q c"]]:
        """All checkpoints in one vectorised pass."""
        vectors, values = self._model.at_all(batch, self._vectors, self._tensors)
        return vectors.transpose(0, 1).flatten(1), values.T

    def exact(
        self, queries: Batch, train: Iterable[Batch]
    ) -> Iterator[tuple[Float[Tensor, "b q"], Float[Tensor, "b c"]]]:
        """Factor products, nothing projected, nothing stored but the factors of the queries."""
        for parts, norms in self.exact_parts(queries, train):
            yield parts.sum(0), norms

    def exact_parts(
        self, queries: Batch, train: Iterable[Batch]
    ) -> Iterator[tuple[Float[Tensor, "c b q"], Float[Tensor, "b c"]]]:
        """The same, by checkpoint."""
        here = [self._here(i) for i in range(len(self._model))]
        asked = self.asked(queries)
        for batch in train:
            scores, norms = [], []
            for i in range(len(self._model)):

                def keep(name: str, gradient: BlockGradient, i: int = i) -> tuple[Tensor, Tensor]:
                    scaled, eta = self._preconditioned(name, gradient, here[i]), self._etas[name][i]
                    return eta * scaled.dot(asked[i][name]), eta * scaled.square_norm()

                kept = list(self._model.each(i, batch, keep).kept.values())
                scores.append(torch.stack([products for products, _ in kept]).sum(0))
                norms.append(torch.stack([norm for _, norm in kept]).sum(0))
            yield torch.stack(scores), torch.stack(norms, dim=1)

    def _here(self, checkpoint: int) -> dict[str, Tensor]:
        return {name: stack[checkpoint] for name, stack in self._tensors.items()}

    def _vectors(self, gradients: Gradients, here: Mapping[str, Tensor]) -> Float[Tensor, "b d"]:
        scaled = {name: self._preconditioned(name, gradient, here) for name, gradient in gradients.items()}
        return project(self._projection, scaled, here, {name: here[f"{name}{_ROOT}"] for name in scaled})

    def _preconditioned(self, name: str, gradient: BlockGradient, here: Mapping[str, Tensor]) -> BlockGradient:
        scale = here.get(f"{name}{_SCALE}")
        return gradient if scale is None else ScaledGradient(gradient, scale)


def _with_rates_within(layout: Layout, etas: Etas, scales: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the scales, those of blocks whose parameters have several etas multiplied by the roots of their ratios.

    A weight and its bias are one block; an optimizer may step them at different rates.
    """
    found = dict(scales)
    for block in layout.blocks:
        rates = torch.tensor([[eta[name] for name in block.parameters] for eta in etas], dtype=torch.float64)
        ratios = rates / rates[:, :1]
        if (ratios == 1).all():
            continue
        columns = torch.ones(len(etas), 1, block.shape[1])
        columns[:, :, -1:] = ratios[:, -1].sqrt()[:, None, None]  # the bias is the last column of its weight's block
        found[block.name] = found.get(block.name, torch.ones(len(etas), *block.shape)) * columns
    return found
