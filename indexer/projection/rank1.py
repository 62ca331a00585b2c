"""rank1: flatten((G1 left)(G2 right)') for every parameter block (TracIn, appendix F), in O((m + n) sqrt(d)).

G1 [r1, m] and G2 [r2, n] have independent entries of variance 1/r1 and 1/r2, so that E[G1'G1] = I and E[G2'G2] = I and
products of sketches are unbiased. (The paper prints E[G1 G1'] = I, and swaps m and n between text and formula.)
A left side that is already short (classes) is left alone: projecting ten classes onto ten numbers would only add noise.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt

import torch
from jaxtyping import Float
from torch import Tensor

from indexer.errors import BuildError
from indexer.gradients.block import BlockGradient
from indexer.gradients.layout import Block, Layout
from indexer.projection.random_matrix import normal_matrix

SHORT = 16  # outputs or classes: a left side of up to so many numbers is whole where the share has room for it


@dataclass(frozen=True, slots=True)
class Rank1:
    """Two thin matrices for every block; each block gets an equal share of ``numbers``, and uses up to that.

    Raises:
        BuildError: ``numbers`` leaves a block without a number.
    """

    layout: Layout
    numbers: int
    seed: int = 0

    def __post_init__(self) -> None:
        if self.numbers < len(self.layout.blocks):
            raise BuildError(
                f"rank1 with numbers={self.numbers}: expected at least {len(self.layout.blocks)}, "
                "one number for each parameter block"
            )

    @property
    def width(self) -> int:
        """The sum of r1 r2 over blocks."""
        return sum(r1 * r2 for r1, r2 in map(self.sides, self.layout.blocks))

    def sides(self, block: Block) -> tuple[int, int]:
        """Return (r1, r2): near-square, r1 r2 within the block's share, and no longer than the sides themselves."""
        share = self.numbers // len(self.layout.blocks)
        m, n = block.shape
        r1 = m if m <= min(SHORT, share) else min(m, isqrt(share))
        r2 = min(n, share // r1)
        return min(m, share // r2), r2

    def matrices(self, checkpoint: int) -> dict[str, Tensor]:
        """{block/left: [r1, m], block/right: [r2, n]}, without the sides that are left alone."""
        found = {}
        for block in self.layout.blocks:
            for side, full, short in zip(("left", "right"), block.shape, self.sides(block), strict=True):
                if short < full:
                    found[f"{block.name}/{side}"] = normal_matrix(
                        (short, full), 1 / short, seed=self.seed, place=(checkpoint, block.name, side)
                    )
        return found

    def piece(self, name: str, gradient: BlockGradient, matrices: Mapping[str, Tensor]) -> Float[Tensor, "b r"]:
        """The flattened sandwich."""
        return gradient.sandwich(matrices.get(f"{name}/left"), matrices.get(f"{name}/right")).flatten(1)

    def join(self, pieces: Mapping[str, Tensor], matrices: Mapping[str, Tensor]) -> Float[Tensor, "b d"]:
        """The sandwiches, concatenated."""
        return torch.cat([pieces[block.name] for block in self.layout.blocks], dim=1)
