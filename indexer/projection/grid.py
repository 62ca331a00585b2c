"""The grid of a checkpoint: a box of r1 by r2 coordinates for every block, flattened, one after the other.

A coordinate is a block, a left and a right vector; an entry is its number in the grid of some boxes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from jaxtyping import Int
from torch import Tensor

Box = dict[str, tuple[int, int]]  # [r1, r2] of every block, in the order of the layout


@dataclass(frozen=True, slots=True)
class Places:
    """Coordinates, in any grid that has them: the names of all blocks, and number of block, left and right vector."""

    names: tuple[str, ...]
    block: Int[Tensor, " k"]
    left: Int[Tensor, " k"]
    right: Int[Tensor, " k"]


def places_of(entries: Int[Tensor, " k"], box: Box) -> Places:
    """Return the coordinates of entries.

    >>> found = places_of(torch.tensor([5, 6]), {"a": (2, 3), "b": (1, 1)})
    >>> found.block.tolist(), found.left.tolist(), found.right.tolist()
    ([0, 1], [1, 0], [2, 0])
    """
    starts, columns = _starts(box), torch.tensor([r2 for _, r2 in box.values()])
    block = torch.searchsorted(starts, entries, right=True) - 1
    within = entries - starts[block]
    return Places(tuple(box), block, within // columns[block], within % columns[block])


def entries_of(places: Places, box: Box) -> Int[Tensor, " k"]:
    """Return the entries of coordinates, in the grid of any boxes that have them."""
    columns = torch.tensor([r2 for _, r2 in box.values()])
    found: Tensor = _starts(box)[places.block] + places.left * columns[places.block] + places.right
    return found


def box_of(places: Sequence[Places]) -> Box:
    """Return the smallest box that has all places; no side of a block is empty."""
    box = {}
    for number, name in enumerate(places[0].names):
        here = [at.block == number for at in places]
        left = torch.cat([at.left[chosen] for at, chosen in zip(places, here, strict=True)]).tolist()
        right = torch.cat([at.right[chosen] for at, chosen in zip(places, here, strict=True)]).tolist()
        box[name] = max(left, default=0) + 1, max(right, default=0) + 1
    return box


def _starts(box: Box) -> Tensor:
    return torch.tensor([0, *accumulate(r1 * r2 for r1, r2 in box.values())])
