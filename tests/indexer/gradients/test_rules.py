"""Every rule, from a layer in a model to its block, against a loop of ``backward()`` in float64 and in float32."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from indexer.gradients.block import BlockGradient
from indexer.gradients.capture import eager, tapped, whole
from indexer.gradients.convolution_use import Geometry
from indexer.gradients.rules import (
    Convolve,
    Embed,
    EmbedBag,
    Linear,
    Normalise,
    Rule,
    Scale,
    TransposedConvolve,
    TransposedLinear,
)
from indexer.gradients.trace import trace
from tests.reference import in_blocks, loop_gradients_by_name, relative_error

DOUBLE = 1e-10  # float64: rounding of sums over a few hundred terms is below 1e-14
SINGLE = 1e-5  # float32: the same sums round at 1e-7 and lose a digit or two


def squares(outputs: Tensor, targets: Tensor) -> Tensor:
    """A loss whose gradient at the outputs is another one in every entry."""
    return (outputs.flatten(1) - targets[:, None]).square().mean(1)


def normalised(layer: nn.Module) -> nn.Module:
    """A normalisation with weights, biases and running statistics that are not those of its start."""
    for name, tensor in (*layer.named_parameters(), *layer.named_buffers()):
        if tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.5 if "var" in name else -1, 2)
    return layer


class Tied(nn.Module):
    """Tokens [b, t] -> [b, rows], the embedding's weight once more as head."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(rows, width)

    def forward(self, tokens: Tensor) -> Tensor:
        return F.linear(self.embedding(tokens).tanh().sum(1), self.embedding.weight)


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(5, 3), (5,)),
    "linear over positions": (lambda: nn.Linear(5, 3), (4, 2, 5)),
    "conv1d": (lambda: nn.Conv1d(2, 4, 3, stride=2, padding=1, dilation=2), (2, 9)),
    "conv1d circular": (lambda: nn.Conv1d(2, 4, 3, padding=1, padding_mode="circular"), (2, 9)),
    "conv2d grouped": (lambda: nn.Conv2d(4, 6, (3, 2), groups=2, padding="same"), (4, 5, 6)),
    "conv2d depthwise": (lambda: nn.Conv2d(4, 8, 3, groups=4), (4, 5, 6)),
    "conv3d": (lambda: nn.Conv3d(2, 3, (2, 1, 2), stride=(1, 2, 1), groups=1), (2, 4, 3, 4)),
    "conv3d grouped": (lambda: nn.Conv3d(2, 4, 2, groups=2, bias=False), (2, 3, 3, 4)),
    "transposed conv1d": (lambda: nn.ConvTranspose1d(2, 3, 3, stride=2, padding=1, output_padding=1), (2, 5)),
    "transposed conv2d grouped": (lambda: nn.ConvTranspose2d(4, 6, (3, 2), stride=2, groups=2), (4, 4, 3)),
    "transposed conv3d": (lambda: nn.ConvTranspose3d(2, 3, 2, dilation=2), (2, 3, 2, 2)),
    "layer norm": (lambda: normalised(nn.LayerNorm(5)), (5,)),
    "layer norm over two axes": (lambda: normalised(nn.LayerNorm((3, 5))), (2, 3, 5)),
    "layer norm over positions": (lambda: normalised(nn.LayerNorm(5)), (2, 3, 5)),
    "rms norm": (lambda: normalised(nn.RMSNorm(5)), (3, 5)),
    "group norm": (lambda: normalised(nn.GroupNorm(2, 4)), (4, 3, 2)),
    "batch norm": (lambda: normalised(nn.BatchNorm1d(4)), (4,)),
    "batch norm over pixels": (lambda: normalised(nn.BatchNorm2d(4)), (4, 3, 2)),
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("case", CASES)
def test_a_layer_has_a_rule_and_its_gradients_are_those_of_the_loop(case: str, dtype: torch.dtype) -> None:
    make, shape = CASES[case]
    module, x = make().eval(), torch.randn(4, *shape)
    assert_blocks_of_the_loop(module, x, dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("padding", [None, 0])
def test_an_embedding_has_a_rule(padding: int | None, dtype: torch.dtype) -> None:
    tokens = torch.tensor([[0, 1, 1], [2, 0, 5], [5, 5, 5], [0, 0, 3]])
    assert_blocks_of_the_loop(nn.Embedding(6, 4, padding_idx=padding), tokens, dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_an_embedding_tied_to_its_head_adds_both_roles(dtype: torch.dtype) -> None:
    assert_blocks_of_the_loop(Tied(6, 4), torch.randint(0, 6, (4, 3)), dtype)


def assert_blocks_of_the_loop(module: nn.Module, x: Tensor, *dtypes: torch.dtype) -> None:
    """Every block is on the factor path and equals the loop's in every dtype: both captures, and all primitives.

    A packed projection that was split is found by its views, which `tapped` cannot see.
    """
    module, targets = module.double().eval(), torch.randn(len(x)).double()
    wide = x.double() if x.is_floating_point() else x
    layout = trace(module, squares, (wide, targets))
    assert {block.path for block in layout.blocks} == {"factors"}
    expected = in_blocks(layout, loop_gradients_by_name(module, squares, wide, targets))
    split = any(piece is not None and piece.rows is not None for site in layout.sites for piece in site.pieces)
    for dtype in dtypes:
        state = {
            name: tensor.detach().to(dtype) for name, tensor in (*module.named_parameters(), *module.named_buffers())
        }
        batch = (x.to(dtype) if x.is_floating_point() else x, targets.to(dtype))
        for capture in (eager,) if split else (eager, tapped):
            found = capture(module.to(dtype), state, squares, batch, layout, whole).kept
            assert found.keys() == expected.keys()
            for name, right in expected.items():
                assert_primitives(found[name], right, DOUBLE if dtype == torch.float64 else SINGLE)


def assert_primitives(found: BlockGradient, right: Tensor, tolerance: float) -> None:
    """The gradient itself, its norms, its products and its sandwich."""
    flat, (_, m, n) = right.flatten(1), right.shape
    left_map, right_map = torch.randn(3, m), torch.randn(2, n)
    dense = found.dense()
    assert relative_error(dense, right) < tolerance
    assert relative_error(found.square_norm(), flat.square().sum(1)) < tolerance
    assert relative_error(found.dot(found), flat @ flat.T) < tolerance
    sandwich = found.sandwich(left_map.to(dense.dtype), right_map.to(dense.dtype))
    assert relative_error(sandwich, left_map.double() @ right @ right_map.double().T) < tolerance


@pytest.mark.parametrize(
    ("rule", "folds"),
    [
        (Linear(), True),
        (Convolve(Geometry((3,), (1,), (0,), (1,), 1)), True),
        (TransposedConvolve(Geometry((3,), (1,), (0,), (1,), 1)), False),
        (Embed(6, None), False),
        (EmbedBag(6, None, mean=True), False),
        (TransposedLinear(), False),
        (Scale(Normalise("batch", 1e-5), channels=True), False),
    ],
)
def test_a_bias_is_a_column_only_where_the_left_side_is_the_output(rule: Rule, folds: bool) -> None:
    assert rule.folds is folds
