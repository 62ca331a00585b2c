"""pca: the coordinates that carry most of the score, in bases fitted on a sample. The default; biased.

    grid    the sandwiches U g V' of all blocks; U and V are leading eigenvectors of the sides' second moments
    pool    the entries of the grid with most energy: a head, and a tail after it
    sketch  the head turned by an uncentred PCA of its own, then the tail as it is

All within one checkpoint, so that the vector of an index stays the concatenation of its checkpoints. Which
coordinates are kept, and in how many bits, is chosen over all checkpoints together (`indexer.projection.pca_fit`).
<Pa, Pb> is less than <a, b> by what lies outside the bases: gradients unlike the sample lose most of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from indexer.errors import BuildError
from indexer.gradients.block import BlockGradient
from indexer.gradients.layout import Layout

POOL, TURN, KEPT = "pool", "turn", "kept"  # the tensors of a checkpoint beside the blocks' bases
DEFAULT_BYTES, SMALLEST_BYTES = 512, 16
DEFAULT_SAMPLE = 2000


@dataclass(frozen=True, slots=True)
class Pca:
    """A fitted pca.

    bases: for each checkpoint {block/left: U [r1, m], block/right: V [r2, n], pool: entries of the grid [h + t],
    turn: [d - t, h], kept: [t]}, the same names and shapes at every checkpoint (what one has less of is zero).
    bytes: of a coded row; sample: training examples that the bases were fitted on at most.

    Raises:
        BuildError: the bases are not of this layout, or numbers are out of range.
    """

    layout: Layout
    bases: Sequence[Mapping[str, Tensor]]
    bytes: int = DEFAULT_BYTES
    sample: int = DEFAULT_SAMPLE
    seed: int = 0

    def __post_init__(self) -> None:
        check_pca(self.bytes, self.sample)
        sides = {
            f"{block.name}/{side}": size
            for block in self.layout.blocks
            for side, size in zip(("left", "right"), block.shape, strict=True)
        }
        names = {*sides, POOL, TURN, KEPT}
        if not self.bases or any(set(here) != names for here in self.bases):
            raise BuildError("pca: expected the fitted bases of every parameter block at every checkpoint")
        for i, here in enumerate(self.bases):
            for name, size in sides.items():
                if here[name].shape[1] != size:
                    raise BuildError(
                        f"pca: the basis {name!r} of checkpoint {i + 1} is for {here[name].shape[1]} numbers, but the "
                        f"model has {size} there; rebuild the index for this model"
                    )

    @property
    def width(self) -> int:
        """d: the head's directions and the tail."""
        first = self.bases[0]
        return len(first[TURN]) + len(first[KEPT])

    def matrices(self, checkpoint: int) -> dict[str, Tensor]:
        """The bases at that checkpoint."""
        return dict(self.bases[checkpoint])

    def piece(self, name: str, gradient: BlockGradient, matrices: Mapping[str, Tensor]) -> Float[Tensor, "b r"]:
        """The block's part of the grid."""
        return gradient.sandwich(matrices[f"{name}/left"], matrices[f"{name}/right"]).flatten(1)

    def join(self, pieces: Mapping[str, Tensor], matrices: Mapping[str, Tensor]) -> Float[Tensor, "b d"]:
        """The pool of the whole grid, its head turned."""
        grid = torch.cat([pieces[block.name] for block in self.layout.blocks], dim=1)
        turn, kept = matrices[TURN], matrices[KEPT]
        pool = grid.gather(1, matrices[POOL].expand(len(grid), -1))
        h = turn.shape[1]
        return torch.cat([pool[:, :h] @ turn.T, pool[:, h:] * kept], dim=1)


def check_pca(bytes: int, sample: int) -> None:
    """Refuse numbers that make no projection.

    Raises:
        BuildError: too few bytes or examples.
    """
    if bytes < SMALLEST_BYTES:
        raise BuildError(f"pca with bytes={bytes}: expected at least {SMALLEST_BYTES} bytes an example")
    if sample < 2:
        raise BuildError(f"pca with sample={sample}: expected at least 2 training examples to fit bases on")
