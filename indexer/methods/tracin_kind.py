"""How TracInCP is fitted when an index is built, and opened again when it is read.

Fitted are the bases of a projection that has any, and the preconditioner that was asked for.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from indexer.errors import BuildError
from indexer.gradients.at_checkpoints import ModelAtCheckpoints
from indexer.gradients.capture import Gradients
from indexer.methods.method import Etas, Fitted, Sample
from indexer.methods.tracin import TracIn
from indexer.projection.identity import Identity
from indexer.projection.pca import DEFAULT_BYTES, DEFAULT_SAMPLE, check_pca
from indexer.projection.pca_fit import fit_pca
from indexer.projection.projections import FITTED, Projection, make_projection, named

_BASES = "bases/"  # before checkpoint and name, among the fitted tensors


class TracInKind:
    """TracInCP, by the projection and the preconditioner that its parameters name."""

    fitted_on_all_rows = False  # bases come from a sample, and serve rows that were not in it

    def fit(
        self,
        model: ModelAtCheckpoints,
        etas: Etas,
        parameters: Mapping[str, Any],
        sample: Sample,
        step_sizes: Sequence[Mapping[str, Tensor]] | None,
    ) -> Fitted:
        """Return the square roots of step sizes by ``checkpoint/parameter``, and the bases of the projection.

        Raises:
            BuildError: the optimizer has no step size for a parameter of the gradient, the projection is unknown or
                does not take its parameters, or the sample has nothing to fit it on.
        """
        scales = {} if parameters.get("preconditioner") is None else _roots_of_step_sizes(model, step_sizes or ())
        name, numbers = named(_projection(parameters))
        if name not in FITTED:
            return Fitted(scales)
        bytes = numbers.get("bytes", DEFAULT_BYTES)
        check_pca(bytes, numbers.get("sample", DEFAULT_SAMPLE))
        plain = TracIn(model, etas, Identity(model.layout), _block_scales(model, scales) if scales else None)
        samples = [partial(_gradients, plain, i, sample) for i in range(len(model))]
        roots = [plain.roots(i) for i in range(len(model))]
        bases, code = fit_pca(model.layout, samples, roots, bytes, numbers.get("seed", 0))
        found = {f"{_BASES}{i}/{name}": tensor for i, here in enumerate(bases) for name, tensor in here.items()}
        return Fitted(scales | found, code)

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
        projection = fitted_projection(model, parameters, fitted)
        preconditioner = parameters.get("preconditioner")
        if preconditioner is None:
            return TracIn(model, etas, projection)
        scales = {name: tensor for name, tensor in fitted.items() if not name.startswith(_BASES)}
        if preconditioner != "adam" or not scales:
            raise BuildError(
                f"method 'tracin': preconditioner {preconditioner!r} is unknown, or its tensors are missing"
            )
        return TracIn(model, etas, projection, _block_scales(model, scales))


def fitted_projection(
    model: ModelAtCheckpoints, parameters: Mapping[str, Any], fitted: Mapping[str, Tensor]
) -> Projection:
    """Return the projection that the parameters name, with the bases that were fitted for it where it has any."""
    bases = [_of_checkpoint(fitted, i) for i in range(len(model))]
    return make_projection(model.layout, _projection(parameters), bases)


def _projection(parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    found = parameters.get("projection")
    if not isinstance(found, Mapping):
        raise BuildError("method 'tracin': expected a projection, such as {'name': 'pca', 'bytes': 512}")
    return found


def _gradients(tracin: TracIn, checkpoint: int, sample: Sample) -> Iterator[Gradients]:
    for batch in sample():
        yield tracin.gradients(checkpoint, batch)


def _of_checkpoint(fitted: Mapping[str, Tensor], checkpoint: int) -> dict[str, Tensor]:
    start = f"{_BASES}{checkpoint}/"
    return {name.removeprefix(start): tensor for name, tensor in fitted.items() if name.startswith(start)}


def _roots_of_step_sizes(model: ModelAtCheckpoints, step_sizes: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    found = {}
    for i, sizes in enumerate(step_sizes):
        for name in (name for block in model.layout.blocks for name in block.parameters):
            if name not in sizes:
                raise BuildError(
                    f"preconditioner 'adam': the optimizer state of checkpoint {i + 1} has no second moments of "
                    f"{name!r}; leave it out of the parameters, or save the state of an optimizer that steps it"
                )
            found[f"{i}/{name}"] = sizes[name].sqrt()
    return found


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
