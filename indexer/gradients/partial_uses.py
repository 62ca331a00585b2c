"""Uses of calls that do not stand for one example and one whole parameter each.

`Repeated`: an example takes several rows of the call's batch (frames of a film, windows of an image).
`Rows`: the call was given only some rows of the parameter (a packed projection that was split).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from indexer.gradients.uses import Lefts, UnitVectors, Use


@dataclass(frozen=True, slots=True)
class Repeated:
    """A use of [b · times] examples that are b examples: neighbours add up."""

    use: Use
    times: int

    @property
    def batch(self) -> int:
        """Examples, each of several rows."""
        return self.use.batch // self.times

    @property
    def shape(self) -> tuple[int, int, int]:
        """times as many positions."""
        t, m, n = self.use.shape
        return self.times * t, m, n

    def sandwich(self, left: Tensor | None, right: Tensor | None) -> Float[Tensor, "b r1 r2"]:
        """The sum over an example's rows."""
        return torch.unflatten(self.use.sandwich(left, right), 0, (-1, self.times)).sum(1)

    def pairs(self) -> tuple[Lefts, Float[Tensor, "b t n"]]:
        """The positions of an example's rows, one after the other."""
        left, right = self.use.pairs()
        if isinstance(left, UnitVectors):
            return UnitVectors(self._joined(left.ids), left.m), self._joined(right)
        return self._joined(left), self._joined(right)

    def some(self, rows: slice) -> "Repeated":
        """All rows of some examples."""
        start = (rows.start or 0) * self.times
        return Repeated(self.use.some(slice(start, rows.stop * self.times)), self.times)

    def _joined(self, factors: Tensor) -> Tensor:
        return torch.unflatten(factors, 0, (-1, self.times)).flatten(1, 2)


@dataclass(frozen=True, slots=True)
class Rows:
    """A use of the rows start to stop of a block that has m rows: its left factors are zero elsewhere."""

    use: Use
    rows: tuple[int, int]
    m: int

    @property
    def batch(self) -> int:
        """Examples."""
        return self.use.batch

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of the whole block."""
        t, _, n = self.use.shape
        return t, self.m, n

    def sandwich(self, left: Tensor | None, right: Tensor | None) -> Float[Tensor, "b r1 r2"]:
        """The columns of L that belong to the rows; without L, rows of zero around them."""
        start, stop = self.rows
        if left is not None:
            return self.use.sandwich(left[:, start:stop], right)
        return torch.nn.functional.pad(self.use.sandwich(None, right), (0, 0, start, self.m - stop))

    def pairs(self) -> tuple[Lefts, Float[Tensor, "b t n"]]:
        """Left factors with zeros around them."""
        left, right = self.use.pairs()
        if isinstance(left, UnitVectors):
            return UnitVectors(left.ids + self.rows[0], self.m), right
        return torch.nn.functional.pad(left, (self.rows[0], self.m - self.rows[1])), right

    def some(self, rows: slice) -> "Rows":
        """The same rows of the block, of some examples."""
        return Rows(self.use.some(rows), self.rows, self.m)
