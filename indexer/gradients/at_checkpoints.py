"""One model at several checkpoints, warm in memory, and its per-example gradients there.

each(i, batch, keep)       what is kept of every block's gradient at checkpoint i, block by block, for the indexer
at(i, batch)               all gradients of a batch at checkpoint i, factors and all
at_all(batch, vectors)     vectors of a small batch at all checkpoints in one vectorised pass, as a query needs them
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, vmap

from indexer.gradients.block import BlockGradient, DenseGradient
from indexer.gradients.capture import Captured, Gradients, Keep, State, T, eager, tapped, whole
from indexer.gradients.general import by_loop, by_vmap
from indexer.gradients.layout import Layout
from indexer.task import Loss

Vectors = Callable[[Gradients, Mapping[str, Tensor]], Tensor]


class ModelAtCheckpoints:
    """A module with the states of c checkpoints.

    channels_last: take large batches with channels as the innermost axis, where the module has 2-d convolutions.
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
        channels_last: bool = False,
    ) -> None:
        self._module = module.eval().to(dtype)
        self.loss = loss
        self.layout = layout
        self.dtype = dtype
        names = [name for name, _ in (*module.named_parameters(), *module.named_buffers())]
        self._stacked = {name: torch.stack([_cast(state[name], dtype) for state in states]) for name in names}
        self._channels_last = channels_last
        self._states = [self._unstacked(i) for i in range(len(states))]

    def __len__(self) -> int:
        """Checkpoints."""
        return len(self._states)

    def outputs(self, checkpoint: int, inputs: Tensor) -> Tensor:
        """Return the model's outputs at one checkpoint."""
        with torch.no_grad():
            outputs: Tensor = functional_call(self._module, self._states[checkpoint], (_cast(inputs, self.dtype),))
        return outputs

    def each(
        self, checkpoint: int, batch: tuple[Tensor, Tensor], keep: Keep[T], objective: Loss | None = None
    ) -> Captured[T]:
        """Return keep(block, gradient) of every block for h (default: the loss) at one checkpoint.

        A gradient is dropped as soon as ``keep`` has seen it, so that memory stays near that of a training step.
        """
        inputs, targets = self._cast(batch)
        if self._channels_last and inputs.ndim == 4:
            inputs = inputs.to(memory_format=torch.channels_last)
        return self._captured(eager, self._states[checkpoint], (inputs, targets), objective or self.loss, keep)

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

        One vectorised pass over the checkpoints, or one after the other where the layout says so.
        """
        goal = objective or self.loss
        batch = self._cast(batch)

        def one(capture: Any, state: State, chosen: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
            captured: Captured[BlockGradient] = self._captured(capture, state, batch, goal, whole)
            return vectors(captured.kept, chosen), captured.loss

        if self.layout.sequential is None and not self.layout.on("loop"):
            found: tuple[Tensor, Tensor] = vmap(partial(one, tapped))(self._stacked, dict(matrices))
            return found
        rows = [
            one(eager, self._states[i], {name: stack[i] for name, stack in matrices.items()}) for i in range(len(self))
        ]
        return torch.stack([row for row, _ in rows]), torch.stack([value for _, value in rows])

    def _captured(
        self, capture: Any, state: State, batch: tuple[Tensor, Tensor], goal: Loss, keep: Keep[T]
    ) -> Captured[T]:
        captured: Captured[T] = capture(self._module, state, goal, batch, self.layout, keep)
        for path, gradients_of in (("vmap", by_vmap), ("loop", by_loop)):
            blocks = [block for block in self.layout.blocks if block.path == path]
            if blocks:
                dense = gradients_of(self._module, state, goal, batch, [block.name for block in blocks])
                for block in blocks:
                    values = dense.pop(block.name).reshape(len(batch[0]), *block.shape)
                    captured.kept[block.name] = keep(block.name, DenseGradient(values))
        return captured

    def _unstacked(self, checkpoint: int) -> dict[str, Tensor]:
        """Return the state at one checkpoint: views, but for the kernels of convolutions with channels last."""
        state = {name: stack[checkpoint] for name, stack in self._stacked.items()}
        if self._channels_last:
            for name, tensor in state.items():
                if tensor.ndim == 4:
                    state[name] = tensor.to(memory_format=torch.channels_last)
        return state

    def _cast(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        inputs, targets = batch
        return _cast(inputs, self.dtype), _cast(targets, self.dtype)


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor
