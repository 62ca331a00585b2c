"""TracInCP (TracIn, appendix C): score(z, z') = sum over checkpoints i of eta_i <grad l(w_i, z), grad h(w_i, z')>.

Both vectors are the concatenation over checkpoints of sqrt(eta_i) P_i g_i, so that their inner product is the score:
exact with P = identity, and unbiased for random P. Never the sum over checkpoints: that is another number.
Self-influence at checkpoint i is eta_i ‖g_i(z)‖², from the factors, exact under every projection.
Parameters that the optimizer steps at rates of their own have their own eta_i: it stands before their part of the sum.

With a preconditioner every gradient is first multiplied, entry by entry, by the square root of the optimizer's step
sizes D_i, on both sides: the score is then the sum of eta_i <grad l(w_i, z), D_i grad h(w_i, z')>.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from indexer.errors import BuildError
from indexer.gradients.at_checkpoints import ModelAtCheckpoints
from indexer.gradients.block import BlockGradient, ScaledGradient
from indexer.gradients.capture import Gradients
from indexer.gradients.layout import Layout
from indexer.methods.method import Batch, Etas, Part, TrainRows
from indexer.projection.identity import Identity
from indexer.projection.projections import Projection, describe, make_projection, project

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
        """The head of every random matrix, by ``checkpoint/name``."""
        return {
            f"{i}/{name}": stack[i].flatten()[:8].tolist()
            for name, stack in self._drawn.items()
            for i in range(len(self._model))
        }

    def train_rows(self, batch: Batch) -> TrainRows:
        """One capture a checkpoint gives the vector and the exact self-influence."""
        vectors, norms = [], []
        for i in range(len(self._model)):
            here = self._here(i)

            def keep(
                name: str, gradient: BlockGradient, i: int = i, here: Mapping[str, Tensor] = here
            ) -> tuple[Tensor, Tensor]:
                made = [
                    (self._projection.piece(name, part, here), part.square_norm())
                    for part in self._preconditioned(name, gradient, here).parts()
                ]
                pieces, squares = torch.cat([piece for piece, _ in made]), torch.cat([square for _, square in made])
                return here[f"{name}{_ROOT}"] * pieces, self._etas[name][i] * squares

            kept = self._model.each(i, batch, keep).kept
            vectors.append(self._projection.join({name: piece for name, (piece, _) in kept.items()}))
            norms.append(torch.stack([norm for _, norm in kept.values()]).sum(0))
        return TrainRows(torch.cat(vectors, dim=1), torch.stack(norms, dim=1))

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
        asked = [
            {
                name: self._preconditioned(name, gradient, here[i]).settled()
                for name, gradient in self._model.at(i, queries).kept.items()
            }
            for i in range(len(self._model))
        ]
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


class TracInKind:
    """Fits nothing but the preconditioner that was asked for: its projections need no data."""

    def fit(
        self,
        model: ModelAtCheckpoints,
        parameters: Mapping[str, Any],
        batches: Iterable[Batch],
        step_sizes: Sequence[Mapping[str, Tensor]] | None,
    ) -> dict[str, Tensor]:
        """Return no tensors, or the square roots of the step sizes by ``checkpoint/parameter``.

        Raises:
            BuildError: the optimizer has no step size for a parameter of the gradient.
        """
        if parameters.get("preconditioner") is None:
            return {}
        found = {}
        for i, sizes in enumerate(step_sizes or ()):
            for name in (name for block in model.layout.blocks for name in block.parameters):
                if name not in sizes:
                    raise BuildError(
                        f"preconditioner 'adam': the optimizer state of checkpoint {i + 1} has no second moments of "
                        f"{name!r}; leave it out of the parameters, or save the state of an optimizer that steps it"
                    )
                found[f"{i}/{name}"] = sizes[name].sqrt()
        return found

    def open(
        self,
        model: ModelAtCheckpoints,
        etas: Etas,
        parameters: Mapping[str, Any],
        fitted: Mapping[str, Tensor],
    ) -> TracIn:
        """Return TracInCP with the projection, and the preconditioner, that the parameters name.

        Raises:
            BuildError: the parameters name no projection, or a preconditioner that is unknown or was not fitted.
        """
        if not isinstance(parameters.get("projection"), Mapping):
            raise BuildError("method 'tracin': expected a projection, such as {'name': 'rank1', 'numbers': 1024}")
        projection = make_projection(model.layout, parameters["projection"])
        preconditioner = parameters.get("preconditioner")
        if preconditioner is None:
            return TracIn(model, etas, projection)
        if preconditioner != "adam" or not fitted:
            raise BuildError(
                f"method 'tracin': preconditioner {preconditioner!r} is unknown, or its tensors are missing"
            )
        return TracIn(model, etas, projection, _block_scales(model, fitted))


def _block_scales(model: ModelAtCheckpoints, fitted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return {block: [c, m, n]}: a bias is the last column of its weight's block."""
    return {
        block.name: torch.stack(
            [
                torch.cat([fitted[f"{i}/{name}"].reshape(block.shape[0], -1) for name in block.parameters], dim=1)
                for i in range(len(model))
            ]
        )
        for block in model.layout.blocks
    }


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
