"""What a layout says of its blocks."""

from indexer.gradients.layout import Block, CallSite, Layout
from indexer.gradients.names import Piece
from indexer.gradients.place import Batched
from indexer.gradients.rules import Linear

WEIGHT = Block("fc.weight", ("fc.weight", "fc.bias"), (10, 37), "factors", "linear")
SCALE = Block("norm.weight", ("norm.weight",), (36, 1), "vmap", "no rule for what uses it")
RECURRENT = Block("gru.weight", ("gru.weight",), (12, 4), "loop", "no rule; vmap: refused")
LAYOUT = Layout(
    (SCALE, WEIGHT, RECURRENT),
    (
        CallSite(
            "linear", (Piece("fc.weight"), Piece("fc.bias")), "fc.weight", "fc.weight", Linear(), Batched(), (1, 10)
        ),
    ),
)


def test_size_counts_every_trainable_number() -> None:
    assert WEIGHT.size == 370
    assert LAYOUT.size == 370 + 36 + 48


def test_only_blocks_on_the_factor_path_lend_their_parameters() -> None:
    assert LAYOUT.factor_parameters == {"fc.weight", "fc.bias"}


def test_blocks_of_a_path_keep_their_order() -> None:
    assert [LAYOUT.on("factors"), LAYOUT.on("vmap"), LAYOUT.on("loop")] == [[WEIGHT], [SCALE], [RECURRENT]]
    assert Layout((WEIGHT, SCALE, WEIGHT), ()).on("factors") == [WEIGHT, WEIGHT]
    assert Layout((), ()).size == 0
