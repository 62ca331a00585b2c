"""gaussian: a dense matrix G with entries N(0, 1/d), so that E[G'G] = I (TracIn, appendix E).

<G g, G g'> is an unbiased estimate of <g, g'> with variance (‖g‖²‖g'‖² + <g, g'>²) / d. The reference, and good for
small models: G holds d numbers for every trainable parameter.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from indexer.errors import BuildError, TooLargeError
from indexer.gradients.block import BlockGradient
from indexer.gradients.layout import Layout
from indexer.projection.random_matrix import normal_matrix

LARGEST = 4 * 2**30  # bytes of G at one checkpoint


@dataclass(frozen=True, slots=True)
class Gaussian:
    """One dense matrix [d, p], drawn block by block.

    Raises:
        BuildError: d is not positive.
        TooLargeError: G would take more than 4 GiB a checkpoint.
    """

    layout: Layout
    numbers: int
    seed: int = 0

    def __post_init__(self) -> None:
        if self.numbers < 1:
            raise BuildError(f"gaussian with numbers={self.numbers}: expected at least 1")
        size = 4 * self.numbers * self.layout.size
        if size > LARGEST:
            raise TooLargeError(
                f"gaussian with numbers={self.numbers} needs {size / 2**30:.1f} GiB for its matrix at each checkpoint "
                f"({self.layout.size:,} trainable parameters); use rank1, which needs none of that"
            )

    @property
    def width(self) -> int:
        """d, as asked for."""
        return self.numbers

    def matrices(self, checkpoint: int) -> dict[str, Tensor]:
        """G by blocks of columns: {block: [d, m n]}."""
        return {
            block.name: normal_matrix(
                (self.width, block.size), 1 / self.width, seed=self.seed, place=(checkpoint, block.name, "G")
            )
            for block in self.layout.blocks
        }

    def piece(self, name: str, gradient: BlockGradient, matrices: Mapping[str, Tensor]) -> Float[Tensor, "b d"]:
        """The block's columns of G times the block, formed a few examples at a time."""
        return torch.cat([part.values.flatten(1) @ matrices[name].T for part in gradient.formed()])

    def join(self, pieces: Mapping[str, Tensor], matrices: Mapping[str, Tensor]) -> Float[Tensor, "b d"]:
        """G g: the sum over blocks of columns."""
        first, *others = (pieces[block.name] for block in self.layout.blocks)
        for other in others:
            first = first + other
        return first
