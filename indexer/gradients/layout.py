"""The layout of a model's gradient: its parameter blocks, and the calls whose factors make them.

A layout is found once, by `indexer.gradients.trace`, and is the same at every checkpoint.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from indexer.gradients.names import Piece
from indexer.gradients.place import Place, Shape
from indexer.gradients.rules import Rule

Path = Literal["factors", "copies", "vmap", "loop"]


@dataclass(frozen=True, slots=True)
class Block:
    """A weight with its bias as one more input, or a single parameter, as a matrix of shape [m, n].

    path: how its gradient is made: from factors, from a copy of the parameter for every example, by ``vmap(grad)``, or
    by a loop of ``backward()``; note: the rule, or the reason for a general path, for people to read;
    copied: on the path of copies the shape of one copy, an axis for the examples before it.
    """

    name: str
    parameters: tuple[str, ...]
    shape: tuple[int, int]
    path: Path
    note: str
    copied: Shape | None = None

    @property
    def size(self) -> int:
        """Numbers in the gradient of one example."""
        return self.shape[0] * self.shape[1]


@dataclass(frozen=True, slots=True)
class CallSite:
    """One call of the forward pass that is on the factor path.

    pieces: what it uses of a weight and of a bias that are on the path, or None; weight and bias: the blocks that they
    feed (the same where the bias is a column of the weight's block); place: where its examples sit;
    output: the shape of its output for one example.
    An input that is changed in place after the call needs no care here: autograd refuses to train such a model.
    """

    function: str
    pieces: tuple[Piece | None, Piece | None]
    weight: str | None
    bias: str | None
    rule: Rule
    place: Place
    output: Shape


@dataclass(frozen=True, slots=True)
class Layout:
    """Blocks in the order of the stored vector, and call sites in the order of the forward pass.

    sequential: why a query takes one checkpoint after the other; None where ``vmap`` takes all at once.
    left_out: parameters that are not part of the gradient: frozen, or not chosen.
    """

    blocks: tuple[Block, ...]
    sites: tuple[CallSite, ...]
    sequential: str | None = None
    left_out: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Numbers in the whole gradient of one example: all chosen parameters."""
        return sum(block.size for block in self.blocks)

    @property
    def factor_parameters(self) -> frozenset[str]:
        """Names of the parameters whose gradient comes from factors."""
        return frozenset(name for block in self.on("factors") for name in block.parameters)

    def on(self, path: Path) -> Sequence[Block]:
        """Return the blocks of one path."""
        return [block for block in self.blocks if block.path == path]


def convolves_in_two_dimensions(layout: Layout) -> bool:
    """Whether a call is a 2-d convolution: with channels last these are 1.2 to 1.5 times as fast (measured, CPU)."""
    return any(site.function in ("conv2d", "conv_transpose2d") for site in layout.sites)
