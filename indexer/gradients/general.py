"""The general paths: dense per-example gradients of parameters that have no rule.

`by_vmap` differentiates all examples at once; `by_loop` calls ``backward()`` example by example, for what ``vmap``
cannot batch. Both give the gradient of h(z) for every example as if it were alone in its batch.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from indexer.gradients.capture import State
from indexer.task import Loss

CHUNK = 2**24  # numbers of gradients that vmap makes at once: what it needs beside them stays within some 200 MB


def by_vmap(
    module: nn.Module, state: State, loss: Loss, batch: tuple[Tensor, Tensor], names: Sequence[str]
) -> dict[str, Tensor]:
    """Return {name: gradients [b, *shape]} of the named parameters by ``vmap(grad)``, some examples at a time."""

    def alone(chosen: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return loss(functional_call(module, {**state, **chosen}, (x[None],)), y[None])[0]

    chosen = {name: state[name] for name in names}
    size = max(1, CHUNK // max(1, sum(tensor.numel() for tensor in chosen.values())))
    chunk = None if size >= len(batch[0]) else size
    with sdpa_kernel(SDPBackend.MATH):  # fused attention has no rule for vmap, which would take it in turns
        gradients: dict[str, Tensor] = vmap(grad(alone), in_dims=(None, 0, 0), chunk_size=chunk)(chosen, *batch)
    return gradients


def by_loop(
    module: nn.Module, state: State, loss: Loss, batch: tuple[Tensor, Tensor], names: Sequence[str]
) -> dict[str, Tensor]:
    """Return {name: gradients [b, *shape]} of the named parameters, one ``backward()`` an example."""
    inputs, targets = batch
    chosen = {name: state[name].detach().requires_grad_() for name in names}
    rows = []
    for x, y in zip(inputs, targets, strict=True):
        with torch.enable_grad():
            value = loss(functional_call(module, {**state, **chosen}, (x[None],)), y[None])[0]
        rows.append(torch.autograd.grad(value, list(chosen.values()), materialize_grads=True))
    return {name: torch.stack(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}
