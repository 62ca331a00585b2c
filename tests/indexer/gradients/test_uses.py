"""Every use against the gradients of a loop of ``backward()``: for a loss <target, output>, delta is the target."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from indexer.gradients.uses import WORTH_FILLING, DenseUse, EmbeddingUse, LinearUse, Use, thin_product
from tests.reference import loop_gradients_by_name, relative_error

DOUBLE = 1e-10  # float64: rounding of sums over a few hundred terms is below 1e-14
SINGLE = 1e-5  # float32: the same sums round at 1e-7 and lose a digit or two
PROPERTY = settings(max_examples=25, deadline=None, derandomize=True)


def inner_product(outputs: Tensor, targets: Tensor) -> Tensor:
    """<target, output> an example, so that the gradient at the output is the target."""
    return (outputs * targets).flatten(1).sum(1)


def dense_of_loop(module: nn.Module, x: Tensor, delta: Tensor) -> Tensor:
    """The block [b, m, n] of a one-layer module, bias as last column."""
    gradients = loop_gradients_by_name(module, inner_product, x, delta)
    return torch.cat([g.flatten(2) if g.ndim > 2 else g[:, :, None] for g in gradients.values()], dim=2)


def assert_agrees(use: Use, expected: Tensor, tolerance: float = DOUBLE) -> None:
    """Compare all that a use can give with the dense gradient: sandwiches with and without each side, and pairs."""
    m, n = expected.shape[1:]
    left, right = torch.randn(3, m, dtype=torch.float64), torch.randn(2, n, dtype=torch.float64)
    for L, R in ((None, None), (left, None), (None, right), (left, right)):
        product = expected if L is None else L @ expected
        product = product if R is None else product @ R.T
        dtype = use.pairs()[1].dtype
        found = use.sandwich(None if L is None else L.to(dtype), None if R is None else R.to(dtype))
        assert relative_error(found, product) < tolerance
    lefts, rights = use.pairs()
    lefts = lefts if isinstance(lefts, Tensor) else lefts.dense(rights.dtype)
    assert use.batch == len(expected)
    some = use.some(slice(1, len(expected)))
    assert some.batch == 0 or relative_error(some.sandwich(None, None), expected[1:]) < tolerance
    assert relative_error(torch.einsum("btm,btn->bmn", lefts, rights), expected) < tolerance
    assert use.shape == (lefts.shape[1], m, n)
    assert rights.shape == (len(expected), lefts.shape[1], n)


@PROPERTY
@given(
    batch=st.integers(1, 4),
    leading=st.lists(st.integers(1, 4), max_size=2),
    inputs=st.integers(1, 6),
    outputs=st.integers(1, 5),
    bias=st.booleans(),
)
def test_linear_equals_the_loop(batch: int, leading: list[int], inputs: int, outputs: int, bias: bool) -> None:
    layer = nn.Linear(inputs, outputs, bias=bias).double()
    x = torch.randn(batch, *leading, inputs, dtype=torch.float64)
    delta = torch.randn(batch, *leading, outputs, dtype=torch.float64)
    assert_agrees(LinearUse(delta, x, bias), dense_of_loop(layer, x, delta))


@PROPERTY
@given(batch=st.integers(1, 4), leading=st.lists(st.integers(1, 4), max_size=2), width=st.integers(1, 5))
def test_embedding_equals_the_loop(batch: int, leading: list[int], width: int) -> None:
    layer = nn.Embedding(6, width).double()
    tokens = torch.randint(0, 6, (batch, *leading))
    delta = torch.randn(batch, *leading, width, dtype=torch.float64)
    assert_agrees(EmbeddingUse(tokens, delta, 6), dense_of_loop(layer, tokens, delta))


def test_a_gradient_that_is_held_dense_is_what_it_is() -> None:
    values = torch.randn(4, 3, 5, dtype=torch.float64)
    assert_agrees(DenseUse(values), values)


@pytest.mark.parametrize("leading", [(), (5,), (2, 3)])
def test_bias_alone_is_a_block_of_one_column(leading: tuple[int, ...]) -> None:
    layer = nn.Linear(4, 3).double()
    layer.weight.requires_grad_(False)
    x, delta = torch.randn(6, *leading, 4), torch.randn(6, *leading, 3, dtype=torch.float64)
    use = LinearUse(delta, delta[..., :0], bias=True)
    assert_agrees(use, dense_of_loop(layer, x, delta))
    assert use.sandwich(None, None).shape == (6, 3, 1)


def test_float32_factors_agree_to_float32_rounding() -> None:
    x, delta = torch.randn(8, 5, 20), torch.randn(8, 5, 10)
    assert_agrees(LinearUse(delta, x, bias=True), dense_of_loop(nn.Linear(20, 10), x, delta), SINGLE)


@pytest.mark.parametrize("rows", [1, 5, 6, 15, 16, 17, 24, 25, 31, 32])
def test_a_thin_product_that_is_filled_up_is_the_product(rows: int) -> None:
    x, matrix = torch.randn(40, 7, 100, dtype=torch.float64), torch.randn(rows, 100, dtype=torch.float64)
    assert x.numel() > WORTH_FILLING
    assert relative_error(thin_product(x, matrix), x @ matrix.T) < DOUBLE
    assert relative_error(thin_product(x[:1], matrix), x[:1] @ matrix.T) < DOUBLE


def test_a_bias_alone_is_summed_as_exactly_as_backward_sums_it() -> None:
    """A product with ones would lose digits over many positions."""
    delta = torch.randn(2, 65_536, 3)
    found = LinearUse(delta, delta[..., :0], bias=True).sandwich(None, None)[:, :, 0]
    assert relative_error(found, delta.double().sum(1)) < 1e-6
