"""Places: where the examples of a batch sit in the tensors of one call.

Not always in front: attention works on [sequence, batch, …], or on [sequence · batch, …], windows and frames on
[batch · windows, …], attention over windows on [sequence · batch · windows, …], and a table of positions on
[1, sequence, …], without a batch at all. A place brings a call's
input and delta to [b, positions…, …], where the rules expect them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

Shape = tuple[int, ...]


@runtime_checkable
class Place(Protocol):
    """How one call holds its examples."""

    def shape(self, unit: Shape, b: int) -> Shape:
        """Return the shape of the call's output for b examples, from the shape for one."""

    def spread(self, output: Tensor, b: int) -> Tensor:
        """Return the output that the model shall go on with: one part of it for every example."""

    def of_input(self, x: Tensor, b: int) -> Tensor:
        """Bring an input to [b, …]."""

    def of_delta(self, delta: Tensor, b: int) -> Tensor:
        """Bring a gradient at the spread output to [b, …]."""


@dataclass(frozen=True, slots=True)
class Batched:
    """One axis holds the examples, and positions before and after them: [before · b · after].

    [b · after]: an example's own positions are neighbours; [before · b]: its positions are far apart.

    >>> Batched(axis=1).shape((7, 1, 5), 4)
    (7, 4, 5)
    """

    axis: int = 0
    before: int = 1
    after: int = 1

    @property
    def times(self) -> int:
        """Positions of each example on the axis."""
        return self.before * self.after

    def shape(self, unit: Shape, b: int) -> Shape:
        """The batch's axis grows by b."""
        return (*unit[: self.axis], unit[self.axis] * b, *unit[self.axis + 1 :])

    def spread(self, output: Tensor, b: int) -> Tensor:
        """The output as it is."""
        return output

    def of_input(self, x: Tensor, b: int) -> Tensor:
        """The batch in front, what else its axis held right after it, as one axis."""
        if self.times == 1:
            return x if self.axis == 0 else x.movedim(self.axis, 0)
        apart = torch.unflatten(x, self.axis, (self.before, b, self.after))
        first = apart.movedim((self.axis + 1, self.axis, self.axis + 2), (0, 1, 2))
        return first.flatten(1, 2)

    def of_delta(self, delta: Tensor, b: int) -> Tensor:
        """The same."""
        return self.of_input(delta, b)


@dataclass(frozen=True, slots=True)
class Shared:
    """All examples share the call, as they do a table of positions: its output is copied for each of them.

    new_axis: the output has no axis for a batch; else its first axis is of size 1.
    """

    new_axis: bool

    def shape(self, unit: Shape, b: int) -> Shape:
        """The call itself does not know how many examples there are."""
        return unit

    def spread(self, output: Tensor, b: int) -> Tensor:
        """A copy for every example."""
        return self.of_input(output, b).contiguous()

    def of_input(self, x: Tensor, b: int) -> Tensor:
        """The one input, seen b times."""
        return x[None].expand(b, *x.shape) if self.new_axis else x.expand(b, *x.shape[1:])

    def of_delta(self, delta: Tensor, b: int) -> Tensor:
        """As it is: the copies are in front."""
        return delta


def batched_places(shape: Shape, fewer: Shape, b: int) -> Sequence[Batched]:
    """Return the places that explain two shapes of one output, for b examples and for one fewer.

    >>> batched_places((7, 4, 5), (7, 3, 5), 4)
    [Batched(axis=1, before=1, after=1)]
    >>> [(place.before, place.after) for place in batched_places((24, 5), (18, 5), 4)]
    [(1, 6), (2, 3), (3, 2), (6, 1)]
    """
    axes = [axis for axis, (n, m) in enumerate(zip(shape, fewer, strict=False)) if n != m]
    if len(shape) != len(fewer) or len(axes) != 1:
        return []
    [axis] = axes
    times = shape[axis] // b
    if (times * b, times * (b - 1)) != (shape[axis], fewer[axis]):
        return []
    return [Batched(axis, before, times // before) for before in range(1, times + 1) if times % before == 0]


def shared_places(shape: Shape) -> Sequence[Shared]:
    """Return the ways in which an output without a batch may be copied for every example."""
    return [Shared(new_axis) for new_axis in (False, True) if new_axis or (shape and shape[0] == 1)]
