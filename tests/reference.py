"""Slow and obviously right: what every fast path is compared with. Float64, one example at a time, no shortcuts.

Gradients are flattened in the order of ``named_parameters()``, trainable ones only. The vectors of an index have
another order (a bias is a column of its weight's block): inner products and norms agree, coordinates do not.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from indexer.gradients.layout import Layout

Loss = Callable[[Tensor, Tensor], Tensor]
Batch = tuple[Tensor, Tensor]
State = Mapping[str, Tensor]


def in_float64(module: nn.Module, state: State | None = None) -> nn.Module:
    """Return a float64 copy of a module in ``eval()`` mode, with the weights and buffers of a state if one is given."""
    module = copy.deepcopy(module).double().eval()
    if state is not None:
        with torch.no_grad():
            for name, tensor in (*module.named_parameters(), *module.named_buffers()):
                tensor.copy_(state[name])
    return module


def loop_gradients_by_name(module: nn.Module, loss: Loss, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Return {parameter: gradients [b, *shape]} of the trainable parameters: one ``backward()`` an example."""
    module = in_float64(module)
    parameters = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    rows: dict[str, list[Tensor]] = {name: [] for name in parameters}
    for x, y in zip(_double(inputs), _double(targets), strict=True):
        module.zero_grad(set_to_none=True)
        value = loss(module(x[None]), y[None])
        assert value.shape == (1,), f"one loss an example, found {tuple(value.shape)}"
        torch.autograd.backward(value.sum())
        for name, parameter in parameters.items():
            gradient = parameter.grad
            rows[name].append(torch.zeros_like(parameter) if gradient is None else gradient.clone())
    return {name: torch.stack(gradients).detach() for name, gradients in rows.items()}


def loop_gradients(module: nn.Module, loss: Loss, inputs: Tensor, targets: Tensor) -> Float[Tensor, "b p"]:
    """Return the gradient of every example's loss, parameters flattened one after the other."""
    by_name = loop_gradients_by_name(module, loss, inputs, targets)
    return torch.cat([gradient.flatten(1) for gradient in by_name.values()], dim=1)


def in_blocks(layout: Layout, by_name: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return loop gradients as {block: [b, m, n]}: a bias is the last column of its weight's block."""
    return {
        block.name: torch.cat(
            [by_name[name].reshape(len(by_name[name]), block.shape[0], -1) for name in block.parameters], dim=2
        )
        for block in layout.blocks
    }


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Return |found - expected| / |expected| over all entries; shapes must agree."""
    assert found.shape == expected.shape, f"expected {tuple(expected.shape)}, found {tuple(found.shape)}"
    difference = (found.double() - expected.double()).norm()
    return float(difference / expected.double().norm().clamp_min(1e-300))


def exact_parts(
    model: tuple[nn.Module, Loss], states: Sequence[State], etas: Sequence[float], queries: Batch, train: Batch
) -> Float[Tensor, "c q n"]:
    """Return eta_i <grad l(w_i, z'), grad l(w_i, z)> by checkpoint i, query z' and training example z."""
    module, loss = model
    parts = []
    for state, eta in zip(states, etas, strict=True):
        at_checkpoint = in_float64(module, state)
        asked = loop_gradients(at_checkpoint, loss, *queries)
        trained = loop_gradients(at_checkpoint, loss, *train)
        parts.append(eta * asked @ trained.T)
    return torch.stack(parts)


def exact_scores(
    model: tuple[nn.Module, Loss], states: Sequence[State], etas: Sequence[float], queries: Batch, train: Batch
) -> Float[Tensor, "q n"]:
    """Return TracInCP scores: the parts summed over checkpoints."""
    return exact_parts(model, states, etas, queries, train).sum(0)


def exact_self_influence(
    model: tuple[nn.Module, Loss], states: Sequence[State], etas: Sequence[float], train: Batch
) -> Float[Tensor, "n c"]:
    """Return eta_i |grad l(w_i, z)|^2 by training example z and checkpoint i."""
    module, loss = model
    columns = [
        eta * loop_gradients(in_float64(module, state), loss, *train).square().sum(1)
        for state, eta in zip(states, etas, strict=True)
    ]
    return torch.stack(columns, dim=1)


def top_k(scores: Float[Tensor, " n"], k: int, ids: Sequence[str]) -> list[tuple[str, float]]:
    """Return the k best (id, score), highest first, equal scores in the order of their rows.

    Opponents are ``top_k(-scores, k, ids)`` with the sign turned back.
    """
    pairs = zip(ids, scores.tolist(), strict=True)
    return sorted(pairs, key=lambda pair: -pair[1])[:k]


@dataclass(frozen=True, slots=True)
class MonteCarlo:
    """How far the mean of repeated estimates is from the exact values, and how sharply that was measured.

    deviation: the largest |mean - exact|, in standard errors of that mean;
    resolution: the largest standard error, over the root mean square of the exact values.
    """

    deviation: float
    resolution: float

    @property
    def sharp(self) -> bool:
        """Whether the means are known well enough for a verdict: to 5%."""
        return self.resolution < 0.05

    @property
    def unbiased(self) -> bool:
        """Every mean within 4 standard errors, and sharp."""
        return self.sharp and self.deviation <= 4


def monte_carlo(estimates: Float[Tensor, "seeds pairs"], exact: Float[Tensor, " pairs"]) -> MonteCarlo:
    """Compare independent estimates of each exact value with it."""
    error = estimates.std(0) / len(estimates) ** 0.5
    deviation = ((estimates.mean(0) - exact).abs() / error).max()
    return MonteCarlo(deviation.item(), (error.max() / exact.square().mean().sqrt()).item())


def _double(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor
