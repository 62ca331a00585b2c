"""The four primitives of a block, on every branch (one position, few, many, densely held), against dense sums."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from indexer.gradients.block import BlockGradient, DenseGradient, FactorGradient
from indexer.gradients.convolution_use import ConvolutionUse, Geometry
from indexer.gradients.uses import LinearUse
from tests.reference import relative_error

DOUBLE = 1e-10  # float64: rounding of sums over a few hundred terms is below 1e-14

ONE = Geometry((1, 1), (1, 1), (0, 0), (1, 1), 1)


def factors(b: int, positions: Sequence[int], m: int, n: int) -> FactorGradient:
    """Random factors of one call for each count of positions; n counts the bias column."""
    uses = (
        LinearUse(_randn(b, t, m) if t > 1 else _randn(b, m), _randn(b, t, n - 1) if t > 1 else _randn(b, n - 1), True)
        for t in positions
    )
    return FactorGradient(tuple(uses))


def dense_sum(gradient: FactorGradient) -> Tensor:
    """The definition: the sum over calls and positions of left right'."""
    return torch.stack([torch.einsum("btm,btn->bmn", *use.pairs()) for use in gradient.uses]).sum(0)


def products(left: Tensor, right: Tensor) -> Tensor:
    """<g_i, g'_j> for all i and j."""
    return torch.einsum("imn,jmn->ij", left, right)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    positions=st.lists(st.integers(1, 7), min_size=1, max_size=3),
    others=st.lists(st.integers(1, 7), min_size=1, max_size=2),
    m=st.integers(1, 8),
    n=st.integers(1, 8),
)
def test_factor_primitives_equal_dense_sums(positions: list[int], others: list[int], m: int, n: int) -> None:
    here, there = factors(3, positions, m, n), factors(4, others, m, n)
    expected, other = dense_sum(here), dense_sum(there)
    assert relative_error(here.dense(), expected) < DOUBLE
    assert relative_error(here.square_norm(), expected.square().sum((1, 2))) < DOUBLE
    assert relative_error(here.dot(there), products(expected, other)) < DOUBLE
    assert relative_error(there.dot(here), products(other, expected)) < DOUBLE
    left, right = _randn(2, m), _randn(3, n)
    assert relative_error(here.sandwich(left, right), left @ expected @ right.T) < DOUBLE


@pytest.mark.parametrize(
    ("positions", "m", "n"),
    [((1,), 30, 40), ((2,), 30, 40), ((1, 1), 30, 40), ((50,), 3, 4), ((2, 60), 30, 40)],
    ids=["outer product", "few positions", "two calls", "many positions", "unequal calls"],
)
def test_every_branch_of_norm_and_product(positions: tuple[int, ...], m: int, n: int) -> None:
    here, there = factors(5, positions, m, n), factors(6, positions[:1], m, n)
    assert relative_error(here.square_norm(), dense_sum(here).square().sum((1, 2))) < DOUBLE
    assert relative_error(here.dot(there), products(dense_sum(here), dense_sum(there))) < DOUBLE


def test_linear_and_convolution_of_one_weight_add_up() -> None:
    linear = LinearUse(_randn(3, 4), _randn(3, 5), bias=False)
    convolution = ConvolutionUse(_randn(3, 4, 6, 6), _randn(3, 5, 6, 6), bias=False, geometry=ONE)
    both = FactorGradient((linear, convolution))
    assert relative_error(both.dense(), linear.sandwich(None, None) + convolution.sandwich(None, None)) < DOUBLE
    assert relative_error(both.square_norm(), both.dense().square().sum((1, 2))) < DOUBLE


def test_cross_terms_between_calls_are_kept() -> None:
    use = LinearUse(_randn(3, 4), _randn(3, 5), bias=True)
    once, twice = FactorGradient((use,)), FactorGradient((use, use))
    assert relative_error(twice.square_norm(), 4 * once.square_norm()) < DOUBLE  # not 2: cross terms count


def test_dense_gradients_have_the_same_primitives() -> None:
    factored = factors(3, (2, 3), 6, 7)
    dense = DenseGradient(dense_sum(factored))
    left, right = _randn(2, 6), _randn(3, 7)
    for L, R in ((None, None), (left, None), (None, right), (left, right)):
        assert relative_error(dense.sandwich(L, R), factored.sandwich(L, R)) < DOUBLE
    assert relative_error(dense.square_norm(), factored.square_norm()) < DOUBLE
    assert torch.equal(dense.dense(), dense.values)


def test_dense_and_factored_gradients_multiply_with_each_other() -> None:
    here, there = factors(3, (1,), 6, 7), factors(4, (2,), 6, 7)
    expected = products(dense_sum(here), dense_sum(there))
    kinds: tuple[tuple[BlockGradient, BlockGradient], ...] = (
        (DenseGradient(dense_sum(here)), there),
        (here, DenseGradient(dense_sum(there))),
        (DenseGradient(dense_sum(here)), DenseGradient(dense_sum(there))),
    )
    for first, second in kinds:
        assert relative_error(first.dot(second), expected) < DOUBLE


@pytest.mark.parametrize(("positions", "dense"), [((1,), False), ((2,), False), ((50,), True), ((30, 20), True)])
def test_settled_gradients_are_dense_where_that_is_cheaper_and_give_the_same(
    positions: tuple[int, ...], dense: bool
) -> None:
    here, there = factors(3, positions, 9, 12), factors(4, (1,), 9, 12)
    settled = here.settled()
    assert isinstance(settled, DenseGradient) is dense
    assert settled.settled() is settled
    assert relative_error(there.dot(settled), products(dense_sum(there), dense_sum(here))) < DOUBLE


def _randn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)
