"""Factors of a whole batch from one forward pass and one gradient with respect to layer outputs only.

No gradient of a weight is ever computed. Two ways, the same numbers:

* `eager`: the graph edge of every output is kept, and ``autograd.grad`` asks for the gradients there. The edge,
  not the tensor: an in-place activation then still leaves the pre-activation's gradient.
* `tapped`: a zero is added to every output and ``torch.func.grad`` asks for its gradient. Purely functional, so
  ``vmap`` can run it at all checkpoints at once.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.func import functional_call, grad

from indexer.errors import TaskError
from indexer.gradients.block import BlockGradient, FactorGradient
from indexer.gradients.calls import watching
from indexer.gradients.functions import FunctionCall
from indexer.gradients.layout import CallSite, Layout
from indexer.gradients.uses import Use
from indexer.task import Loss

State = Mapping[str, Tensor]
Gradients = dict[str, BlockGradient]


@dataclass(frozen=True, slots=True)
class Captured:
    """What one pass gives: gradients by block, and the loss of every example."""

    gradients: Gradients
    loss: Float[Tensor, " b"]


def eager(module: nn.Module, state: State, loss: Loss, batch: tuple[Tensor, Tensor], layout: Layout) -> Captured:
    """Return the factor gradients of a batch at one state of the weights.

    Raises:
        TaskError: the forward pass made other calls than when the layout was traced.
    """
    inputs, targets = batch
    tracked = {name: _tracked(tensor, name in layout.factor_parameters) for name, tensor in state.items()}
    edges, made = [], []

    def keep(position: int, output: Tensor) -> Tensor:
        edges.append(get_gradient_edge(output))
        made.append(output.detach())
        return output

    recorder = _SiteRecorder(_names(tracked, layout), layout.sites, keep)
    with torch.enable_grad(), watching(recorder):
        outputs = functional_call(module, tracked, (inputs,))
        losses = loss(outputs, targets)
    recorder.check()
    deltas = _deltas(losses, edges, made)
    gradients = _gradients(layout, deltas, recorder.inputs)
    return Captured(gradients, losses.detach())


def tapped(module: nn.Module, state: State, loss: Loss, batch: tuple[Tensor, Tensor], layout: Layout) -> Captured:
    """Return the same as `eager`, as a pure function of the state that ``vmap`` can batch.

    Raises:
        TaskError: the forward pass made other calls than when the layout was traced.
    """
    inputs, targets = batch
    dtype = next(iter(state.values())).dtype
    taps = [torch.zeros(len(inputs), *site.output, dtype=dtype, device=inputs.device) for site in layout.sites]

    def total(taps: list[Tensor]) -> tuple[Tensor, tuple[Tensor, list[Tensor]]]:
        recorder = _SiteRecorder(_names(state, layout), layout.sites, lambda position, output: output + taps[position])
        with watching(recorder):
            outputs = functional_call(module, dict(state), (inputs,))
            losses = loss(outputs, targets)
        recorder.check()
        return losses.sum(), (losses, recorder.inputs)

    deltas, (losses, seen) = grad(total, has_aux=True)(taps)
    return Captured(_gradients(layout, deltas, seen), losses)


class _SiteRecorder:
    """Follows the call sites of a layout in order, keeps each call's input, and lets ``keep`` see each output."""

    def __init__(
        self, names: Mapping[int, str], sites: Sequence[CallSite], keep: Callable[[int, Tensor], Tensor]
    ) -> None:
        self._names = names
        self._sites = sites
        self._keep = keep
        self.inputs: list[Tensor] = []

    def record(self, call: FunctionCall, output: Tensor) -> Tensor:
        names = (self._names.get(id(call.weight)), self._names.get(id(call.bias)))
        if names == (None, None):
            return output
        position = len(self.inputs)
        found = (call.function, names, tuple(output.shape[1:]))
        if position >= len(self._sites) or found != _expected(self._sites[position]):
            raise TaskError(_OTHER_PATH)
        self.inputs.append(call.x.detach())
        return self._keep(position, output)

    def check(self) -> None:
        if len(self.inputs) != len(self._sites):
            raise TaskError(_OTHER_PATH)


_OTHER_PATH = (
    "the model's forward pass made other calls than when it was traced; Proponent needs the same layers for every "
    "input: remove the data-dependent branch"
)


def _expected(site: CallSite) -> tuple[str, tuple[str | None, str | None], tuple[int, ...]]:
    return site.function, site.names, site.output


def _tracked(tensor: Tensor, trainable: bool) -> Tensor:
    return tensor.detach().requires_grad_() if trainable else tensor.detach()


def _names(state: State, layout: Layout) -> dict[int, str]:
    return {id(state[name]): name for name in layout.factor_parameters}


def _deltas(losses: Tensor, edges: Sequence[GradientEdge], outputs: Sequence[Tensor]) -> list[Tensor]:
    if not edges:
        return []
    deltas = torch.autograd.grad(losses, edges, torch.ones_like(losses), allow_unused=True)
    return [torch.zeros_like(output) if delta is None else delta for delta, output in zip(deltas, outputs, strict=True)]


def _gradients(layout: Layout, deltas: Sequence[Tensor], inputs: Sequence[Tensor]) -> Gradients:
    uses: dict[str, list[Use]] = {block.name: [] for block in layout.on("factors")}
    for site, delta, x in zip(layout.sites, deltas, inputs, strict=True):
        if site.weight is not None:
            uses[site.weight].append(site.rule.weight_use(x, delta, site.bias == site.weight))
        if site.bias is not None and site.bias != site.weight:
            uses[site.bias].append(site.rule.bias_use(delta))
    return {name: FactorGradient(tuple(found)) for name, found in uses.items()}
