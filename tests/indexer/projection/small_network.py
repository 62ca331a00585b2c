"""Per-example gradients of a small network with a convolution and linear layers, to project over and over again."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from indexer.gradients.capture import Gradients, eager, whole
from indexer.gradients.layout import Layout
from indexer.gradients.trace import trace
from indexer.projection.projections import Projection, project
from tests.reference import MonteCarlo, loop_gradients, monte_carlo
from tests.tiny import cross_entropy

PAIRS = 50


@dataclass(frozen=True, slots=True)
class SmallGradients:
    """Gradients of 2 * PAIRS examples; pair i is the examples i and PAIRS + i, and exact[i] their inner product."""

    layout: Layout
    gradients: Gradients
    exact: Tensor


def small_gradients() -> SmallGradients:
    """A convolution and linear layers of more than 16 outputs; two blocks have the same shape, and one is square."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(36, 20),
        nn.ReLU(),
        nn.Linear(20, 20),
        nn.ReLU(),
        nn.Linear(20, 20),
        nn.ReLU(),
        nn.Linear(20, 20, bias=False),
    ).double()
    inputs = torch.rand(2 * PAIRS, 1, 7, 7, dtype=torch.float64)
    targets = torch.arange(2 * PAIRS) % 5  # a pair shares its class, so that products are not mostly cancellation
    layout = trace(module.eval(), cross_entropy, (inputs[:4], targets[:4]))
    state = {name: tensor.detach() for name, tensor in module.named_parameters()}
    gradients = eager(module, state, cross_entropy, (inputs, targets), layout, whole).kept
    dense = loop_gradients(module, cross_entropy, inputs, targets)
    return SmallGradients(layout, gradients, (dense[:PAIRS] * dense[PAIRS:]).sum(1))


def measured(
    small: SmallGradients, projection: Callable[[int], Projection], seeds: int, gradients: Gradients | None = None
) -> MonteCarlo:
    """The verdict on <P g, P g'> over seeds; other gradients than the right ones may be handed to P."""
    rows = []
    for seed in range(seeds):
        chosen = projection(seed)
        sketches = project(chosen, gradients or small.gradients, in_double(chosen.matrices(checkpoint=0)))
        rows.append((sketches[:PAIRS] * sketches[PAIRS:]).sum(1))
    return monte_carlo(torch.stack(rows), small.exact)


def in_double(matrices: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Matrices for gradients in float64; what holds whole numbers stays as it is."""
    return {name: matrix.double() if matrix.is_floating_point() else matrix for name, matrix in matrices.items()}
