"""countsketch: every entry of the gradient is added to, or taken from, one of d numbers, chosen at random.

Each entry e has a code h(e), uniform in [0, 2d): its number is h(e) mod d, and codes from d on turn the sign. So the
sketch is the polynomial sum over e of g_e x^h(e) with x^d = -1, and different entries meet with either sign equally
often: E<Pa, Pb> = <a, b>. All blocks of a checkpoint share the d numbers. A block [m, n] has its codes in one of two
ways, fixed by its shape, so that index and query agree:

* by entries, where m n <= d^2: a code of its own for every entry, Var<Pa, Pb> = (‖a‖²‖b‖² + <a, b>² - 2 sum a²b²) / d;
* by sides, where m n > d^2: h(i, j) = h1(i) + h2(j) mod 2d. Any two entries are still independent, which is all that
  the mean needs; the sketch of an outer product is the product of two polynomials (Pham & Pagh 2013, section 4, which
  has x^d = 1 and signs apart), and of a sum of outer products their sum, so the block is never formed. For a = x y'
  and b = u v' with long sides, Var<Pa, Pb> is about ((‖x‖²‖u‖² + <x, u>²)(‖y‖²‖v‖² + <y, v>²) + 2 <a, b>²) / d: as by
  entries for unrelated factors, three times that for equal ones.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from indexer.errors import BuildError, TooLargeError
from indexer.gradients.block import BlockGradient
from indexer.gradients.layout import Block, Layout
from indexer.projection.random_matrix import whole_numbers

LARGEST = 4 * 2**30  # bytes of codes at one checkpoint, and of one block's thin matrices
MOST = 2**23  # codes are below 2^24: up to there float32 holds every whole number


@dataclass(frozen=True, slots=True)
class CountSketch:
    """One sparse sketch of d numbers for all blocks together.

    Raises:
        BuildError: d is not positive, or its codes are no longer exact in float32.
        TooLargeError: codes, or the matrices that a block's sides are multiplied by, would take more than 4 GiB.
    """

    layout: Layout
    numbers: int
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.numbers <= MOST:
            raise BuildError(f"countsketch with numbers={self.numbers}: expected at least 1 and at most {MOST:,}")
        codes = sum(sum(self._lengths(block).values()) for block in self.layout.blocks)
        size = 4 * max(codes, self.numbers * max(map(self._multiplied, self.layout.blocks), default=0))
        if size > LARGEST:
            raise TooLargeError(
                f"countsketch with numbers={self.numbers} needs {size / 2**30:.1f} GiB at each checkpoint "
                f"({self.layout.size:,} trainable parameters); ask for fewer numbers, or use rank1"
            )

    @property
    def width(self) -> int:
        """d, as asked for."""
        return self.numbers

    def matrices(self, checkpoint: int) -> dict[str, Tensor]:
        """Codes: {block/entries: [m n]}, or {block/left: [m], block/right: [n]}.

        Whole numbers kept as floats: so they come in the dtype of the gradients, which the sides' matrices need.
        """
        return {
            f"{block.name}/{part}": whole_numbers(
                length, 2 * self.width, seed=self.seed, place=(checkpoint, block.name, part)
            )
            for block in self.layout.blocks
            for part, length in self._lengths(block).items()
        }

    def piece(self, name: str, gradient: BlockGradient, matrices: Mapping[str, Tensor]) -> Float[Tensor, "b d"]:
        """The block's share of the sketch: formed a few examples at a time by entries, as a sandwich by sides."""
        entries = matrices.get(f"{name}/entries")
        if entries is not None:
            codes = _whole(entries)
            return torch.cat([self._added(part.values, codes) for part in gradient.formed()])
        left, rows = self._side(matrices[f"{name}/left"])
        right, columns = self._side(matrices[f"{name}/right"])
        return self._added(gradient.sandwich(left, right), (rows[:, None] + columns) % (2 * self.width))

    def join(self, pieces: Mapping[str, Tensor], matrices: Mapping[str, Tensor]) -> Float[Tensor, "b d"]:
        """The sum over blocks."""
        first, *others = (pieces[block.name] for block in self.layout.blocks)
        for other in others:
            first = first + other
        return first

    def _lengths(self, block: Block) -> dict[str, int]:
        """Return how many codes a block has of each kind."""
        if block.size <= self.numbers**2:
            return {"entries": block.size}
        return dict(zip(("left", "right"), block.shape, strict=True))

    def _multiplied(self, block: Block) -> int:
        """Return the length of the sides that are multiplied by a matrix."""
        if block.size <= self.numbers**2:
            return 0
        return sum(side for side in block.shape if side > self.numbers)

    def _side(self, codes: Float[Tensor, " n"]) -> tuple[Float[Tensor, "d n"] | None, Int[Tensor, " r"]]:
        """Return the matrix that sketches a side to d numbers, one ±1 a column, and the codes of what it leaves.

        A side of up to d numbers is left alone and keeps its codes: the sum is the same, with less work.
        """
        d, whole = self.width, _whole(codes)
        if len(codes) <= d:
            return None, whole
        signs = 1 - 2 * (codes >= d).to(codes.dtype)
        matrix = codes.new_zeros(d, len(codes)).scatter(0, (whole % d)[None], signs[None])
        return matrix, torch.arange(d, device=codes.device)

    def _added(self, values: Float[Tensor, "b r s"], codes: Int[Tensor, "..."]) -> Float[Tensor, "b d"]:
        """Add values up by their codes: 2d sums, of which the second half counts negative.

        By a skewed view, or a gather, along diagonals the sum takes about as long for small sandwiches and up to
        seven times as long for large ones (measured, CPU).
        """
        flat = values.flatten(1)
        sums = flat.new_zeros(len(flat), 2 * self.width).scatter_add(1, codes.flatten().expand(len(flat), -1), flat)
        return sums[:, : self.width] - sums[:, self.width :]


def _whole(codes: Float[Tensor, " n"]) -> Int[Tensor, " n"]:
    """Return codes as indices."""
    assert codes.dtype in (torch.float32, torch.float64), f"{codes.dtype} does not hold every code"
    return codes.long()
