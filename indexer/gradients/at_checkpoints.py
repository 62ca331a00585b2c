"""One model at several checkpoints, warm in memory, and its per-example gradients there.

each(i, batch, keep)       what is kept of every block's gradient at checkpoint i, block by block, for the indexer
at(i, batch)               all gradients of a batch at checkpoint i, factors and all
at_all(batch, vectors)     vectors of a small batch at all checkpoints in one vectorised pass, as a query needs them;
                           for one example the pass is traced once and then run as a graph
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from indexer.gradients.block import BlockGradient, DenseGradient
from indexer.gradients.capture import Captured, Gradients, Keep, State, T, eager, tapped, whole
from indexer.gradients.general import by_loop, by_vmap
from indexer.gradients.layout import Layout
from indexer.gradients.traced import TracedPasses
from indexer.task import Loss

Vectors = Callable[[Gradients, Mapping[str, Tensor]], Tensor]


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the tensors of a model are, and in which order the axes of images lie in memory.

    channels_last: large batches have channels as their innermost axis; it pays where there are 2-d convolutions.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    channels_last: bool = False


class ModelAtCheckpoints:
    """A module with the states of c checkpoints, on one device and in one dtype.

    Not thread-safe: ``functional_call`` lends the weights to the one module. Use one from one thread at a time.
    """

    def __init__(
        self,
        module: nn.Module,
        states: Sequence[State],
        loss: Loss,
        layout: Layout,
        *,
        dtype: torch.dtype,
        placement: Placement | None = None,
    ) -> None:
        self.placement = placement or Placement()
        self._module = module.eval().to(dtype=dtype, device=self.placement.device)
        self.loss = loss
        self.layout = layout
        self.dtype = dtype
        self.parameters = {name: parameter.requires_grad for name, parameter in module.named_parameters()}
        names = [name for name, _ in (*module.named_parameters(), *module.named_buffers())]
        chosen = {name for block in layout.blocks for name in block.parameters}
        self._axes = {  # what has no gradient and is one tensor at all checkpoints, such as a frozen base, is kept once
            name: None if name not in chosen and all(state[name] is states[0][name] for state in states) else 0
            for name in names
        }
        self._stacked = {
            name: self.cast(states[0][name])
            if self._axes[name] is None
            else torch.stack([self.cast(state[name]) for state in states])
            for name in names
        }
        self.states = [self._unstacked(i) for i in range(len(states))]
        self._traced = TracedPasses(self._module, self._stacked)

    def __len__(self) -> int:
        """Checkpoints."""
        return len(self.states)

    @property
    def untraced(self) -> str | None:
        """Why `at_all` ran the last single example without a graph, for people to read; None where it had one."""
        return self.layout.sequential or self._traced.reason

    def outputs(self, checkpoint: int, inputs: Tensor) -> Tensor:
        """Return the model's outputs at one checkpoint."""
        with torch.no_grad():
            outputs: Tensor = functional_call(self._module, self.states[checkpoint], (self.cast(inputs),))
        return outputs

    def forward(self, checkpoint: int, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Return the loss of every example at one checkpoint, with the graph that a training step would make."""
        return self._forward(checkpoint, batch)[0]

    def gradient_of_batch(self, checkpoint: int, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """Return the gradient of the summed loss by parameter: what a plain training step computes."""
        losses, state = self._forward(checkpoint, batch)
        names = [name for block in self.layout.blocks for name in block.parameters]
        return dict(zip(names, torch.autograd.grad(losses.sum(), [state[name] for name in names]), strict=True))

    def each(
        self,
        checkpoint: int,
        batch: tuple[Tensor, Tensor],
        keep: Keep[T],
        objective: Loss | None = None,
        layout: Layout | None = None,
    ) -> Captured[T]:
        """Return keep(block, gradient) of every block for h (default: the loss) at one checkpoint.

        A gradient is dropped as soon as ``keep`` has seen it, so that memory stays near that of a training step.
        layout: this model's, without blocks of its general paths.
        """
        cast = (self._inputs(batch), self.cast(batch[1]))
        goal = objective or self.loss
        return self._captured(eager, self.states[checkpoint], cast, goal, keep, layout or self.layout)

    def at(
        self, checkpoint: int, batch: tuple[Tensor, Tensor], objective: Loss | None = None
    ) -> Captured[BlockGradient]:
        """Return the gradients of h (default: the loss) for every example at one checkpoint."""
        return self.each(checkpoint, batch, whole, objective)

    def at_all(
        self,
        batch: tuple[Tensor, Tensor],
        vectors: Vectors,
        matrices: Mapping[str, Tensor],
        objective: Loss | None = None,
    ) -> tuple[Float[Tensor, "c b d"], Float[Tensor, "c b"]]:
        """Return vectors(gradients, matrices) and h at every checkpoint; matrices are stacked by checkpoint.

        One vectorised pass over the checkpoints, or one after the other where the layout says so. The pass over a
        single example is traced at its first time and run as a graph from then on, where that is safe (`untraced`):
        what ``vectors`` and the objective hold must not change.
        """
        goal = objective or self.loss
        batch = (self.cast(batch[0]), self.cast(batch[1]))
        if self.layout.sequential is None and not self.layout.on("loop"):
            together = partial(self._together, vectors, goal)
            if len(batch[0]) == 1:
                return self._traced.run(together, (vectors, goal), batch, matrices)
            return together(batch, self._stacked, matrices)
        rows, values = [], []
        for i, state in enumerate(self.states):
            captured = self._captured(eager, state, batch, goal, whole, self.layout)
            rows.append(vectors(captured.kept, {name: stack[i] for name, stack in matrices.items()}))
            values.append(captured.loss)
        return torch.stack(rows), torch.stack(values)

    def _together(
        self, vectors: Vectors, goal: Loss, batch: tuple[Tensor, Tensor], stacked: State, matrices: State
    ) -> tuple[Tensor, Tensor]:
        """Return vectors and h at all checkpoints, a pure function of all tensors."""

        def one(state: State, chosen: State) -> tuple[Tensor, Tensor]:
            captured = self._captured(tapped, state, batch, goal, whole, self.layout)
            return vectors(captured.kept, chosen), captured.loss

        # fused attention has no rule for vmap; this is a setting of the process: one thread at a time, as above
        with sdpa_kernel(SDPBackend.MATH):
            found: tuple[Tensor, Tensor] = vmap(one, (self._axes, 0))(dict(stacked), dict(matrices))
        return found

    def _forward(self, checkpoint: int, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        state = {name: tensor.detach() for name, tensor in self.states[checkpoint].items()}
        for name in self.parameters:
            state[name].requires_grad_()
        with torch.enable_grad():
            losses = self.loss(functional_call(self._module, state, (self._inputs(batch),)), self.cast(batch[1]))
        return losses, state

    def _captured(
        self, capture: Any, state: State, batch: tuple[Tensor, Tensor], goal: Loss, keep: Keep[T], layout: Layout
    ) -> Captured[T]:
        captured: Captured[T] = capture(self._module, state, goal, batch, layout, keep)
        for path, gradients_of in (("vmap", by_vmap), ("loop", by_loop)):
            blocks = [block for block in layout.blocks if block.path == path]
            if blocks:
                dense = gradients_of(self._module, state, goal, batch, [block.name for block in blocks])
                for block in blocks:
                    values = dense.pop(block.name).reshape(len(batch[0]), *block.shape)
                    captured.kept[block.name] = keep(block.name, DenseGradient(values))
        return captured

    def _inputs(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        inputs = self.cast(batch[0])
        if self.placement.channels_last and inputs.ndim == 4:
            return inputs.to(memory_format=torch.channels_last)
        return inputs

    def _unstacked(self, checkpoint: int) -> dict[str, Tensor]:
        """Return the state at one checkpoint: views, but for the kernels of convolutions with channels last."""
        state = {
            name: (stack if self._axes[name] is None else stack[checkpoint]).detach()
            for name, stack in self._stacked.items()
        }
        if self.placement.channels_last:
            for name, tensor in state.items():
                if tensor.ndim == 4:
                    state[name] = tensor.to(memory_format=torch.channels_last)
        return state

    def cast(self, tensor: Tensor) -> Tensor:
        """Bring a tensor to the device, and to the dtype unless it holds whole numbers."""
        return tensor.to(self.placement.device, self.dtype if tensor.is_floating_point() else tensor.dtype)
