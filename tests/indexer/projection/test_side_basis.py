"""Bases of a side: against the eigenvectors of the exact moment for short sides, and against its best span for long."""

import pytest
import torch
from torch import Tensor

from indexer.gradients.block import BlockGradient, DenseGradient, FactorGradient
from indexer.gradients.moments import Side
from indexer.gradients.uses import EmbeddingUse, LinearUse
from indexer.projection.side_basis import EXACT, OVERSAMPLED, SideBasis
from tests.reference import relative_error

DOUBLE = 1e-8  # float64: eigenvectors lose digits by the gap between eigenvalues, here at least 1e-3 of the largest
ORTHONORMAL = 1e-12  # rows come from a decomposition in float64, whatever the gradients' dtype
LOW_RANK = 1e-9  # share of the moment outside the basis: Nystroem's method is exact there, but for its shift of 1e-12
DECAYING = 0.1  # of what the best basis leaves out, more that a basis from one pass does: 0.045 (measured)
LEADING = 0.01  # relative: of the six leading eigenvalues of a decaying spectrum: 0.002 (measured)
LONG, RANK = 1200, 24


def basis_of(gradient: BlockGradient, weights: Tensor, side: Side, size: int, rank: int, seed: int = 0) -> SideBasis:
    """The basis after one batch."""
    basis = SideBasis(side, size, rank, seed=seed, place=(0, "a", side))
    basis.add(gradient, weights)
    return basis


def moment(values: Tensor, side: Side, weights: Tensor) -> Tensor:
    """The definition, in float64."""
    values = values.double() if side == "left" else values.double().transpose(1, 2)
    return torch.einsum("b,bmn,bkn->mk", weights.double(), values, values)


def long_gradient(b: int, decay: float, dtype: torch.dtype = torch.float64) -> FactorGradient:
    """Outer products [b, 3, LONG] whose right factors have a standard deviation of 1 / j^decay at entry j."""
    x = torch.randn(b, LONG, dtype=torch.float64) * torch.arange(1, LONG + 1, dtype=torch.float64) ** -decay
    return FactorGradient((LinearUse(torch.randn(b, 3, dtype=torch.float64).to(dtype), x.to(dtype), False),))


def left_out(basis: Tensor, exact: Tensor) -> float:
    """The share of a moment that is outside the span of a basis."""
    return 1 - float((basis @ exact @ basis.T).trace() / exact.trace())


def assert_orthonormal(vectors: Tensor) -> None:
    assert (vectors @ vectors.T - torch.eye(len(vectors), dtype=torch.float64)).abs().max() < ORTHONORMAL


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("rank", [4, 100])
def test_a_short_side_has_the_eigenvectors_of_its_moment(side: Side, rank: int) -> None:
    values, weights = torch.randn(30, 6, 9, dtype=torch.float64), torch.rand(30, dtype=torch.float64)
    size = 6 if side == "left" else 9
    vectors, eigenvalues = basis_of(DenseGradient(values), weights, side, size, rank).leading()
    expected, exact = torch.linalg.eigh(moment(values, side, weights))
    kept = min(rank, size)
    assert vectors.shape == (kept, size)
    assert_orthonormal(vectors)
    assert relative_error(eigenvalues, expected.flip(0)[:kept]) < DOUBLE
    overlaps = (vectors * exact.flip(1).T[:kept]).sum(1).abs()  # a sign is free
    assert relative_error(overlaps, torch.ones(kept)) < DOUBLE


def test_batches_add_up() -> None:
    values, weights = torch.randn(30, 6, 9, dtype=torch.float64), torch.rand(30, dtype=torch.float64)
    together = basis_of(DenseGradient(values), weights, "left", 6, 6).leading()[1]
    apart = SideBasis("left", 6, 6, seed=0, place=(0, "a", "left"))
    for start, stop in ((0, 1), (1, 20), (20, 30)):
        apart.add(DenseGradient(values[start:stop]), weights[start:stop])
    assert relative_error(apart.leading()[1], together) < DOUBLE


@pytest.mark.parametrize("b", [2, 10, RANK])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_long_side_of_low_rank_is_spanned_exactly(b: int, dtype: torch.dtype) -> None:
    gradient, weights = long_gradient(b, 0, dtype), torch.rand(b, dtype=dtype) + 0.1
    vectors, eigenvalues = basis_of(gradient, weights, "right", LONG, RANK).leading()
    exact = moment(gradient.dense(), "right", weights)
    assert_orthonormal(vectors)
    assert left_out(vectors, exact) < (LOW_RANK if dtype == torch.float64 else 1e-6)  # a rounding of float32, squared
    expected = torch.linalg.eigvalsh(exact).flip(0)[: len(eigenvalues)]
    # without more examples than columns all of float32's rounding is in eigenvalues: 1e-2 at 2 examples (measured)
    assert relative_error(eigenvalues, expected) < (1e-6 if dtype == torch.float64 else 1e-2)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("seed", range(3))
def test_a_long_side_of_a_decaying_spectrum_is_spanned_nearly_as_well_as_can_be(dtype: torch.dtype, seed: int) -> None:
    gradient, weights = long_gradient(300, 1, dtype), torch.ones(300, dtype=dtype)
    vectors, eigenvalues = basis_of(gradient, weights, "right", LONG, RANK, seed).leading()
    exact = moment(gradient.dense(), "right", weights)
    expected = torch.linalg.eigvalsh(exact).flip(0)[:RANK]
    assert vectors.shape == (RANK, LONG)
    assert_orthonormal(vectors)
    best = 1 - float(expected.sum() / exact.trace())
    assert best < left_out(vectors, exact) < best * (1 + DECAYING)
    assert relative_error(eigenvalues[:6], expected[:6]) < LEADING


def test_a_long_side_takes_memory_that_is_linear_in_it() -> None:
    words = 50_000
    basis = SideBasis("left", words, RANK, seed=0, place=(0, "a", "left"))
    for _ in range(2):
        basis.add(
            FactorGradient((EmbeddingUse(torch.randint(words, (4, 3)), torch.randn(4, 3, 5), words),)), torch.ones(4)
        )
    held = [tensor.shape for tensor in vars(basis).values() if isinstance(tensor, Tensor)]
    assert held == [(words, OVERSAMPLED * RANK)] * 2
    vectors, _ = basis.leading()
    assert vectors.shape[1] == words and len(vectors) <= RANK
    assert_orthonormal(vectors)


@pytest.mark.parametrize("size", [EXACT, EXACT + 1])
def test_both_ways_agree_where_one_ends(size: int) -> None:
    gradient = DenseGradient(torch.randn(8, 2, size, dtype=torch.float64))
    weights = torch.rand(8, dtype=torch.float64)
    vectors, eigenvalues = basis_of(gradient, weights, "right", size, RANK).leading()
    exact = moment(gradient.dense(), "right", weights)
    assert left_out(vectors, exact) < LOW_RANK  # 16 directions
    assert relative_error(eigenvalues[:16], torch.linalg.eigvalsh(exact).flip(0)[:16]) < DOUBLE


@pytest.mark.parametrize("size", [9, LONG])
def test_a_moment_of_zero_gives_a_basis_that_carries_nothing(size: int) -> None:
    gradient = DenseGradient(torch.zeros(4, 2, size))
    vectors, eigenvalues = basis_of(gradient, torch.ones(4), "right", size, 5).leading()
    assert vectors.shape == (5, size)
    assert_orthonormal(vectors)
    assert eigenvalues.abs().max() < torch.finfo(torch.float64).tiny


def test_a_rank_near_the_side_needs_no_random_matrix() -> None:
    gradient = long_gradient(40, 0)
    vectors, _ = basis_of(gradient, torch.ones(40, dtype=torch.float64), "right", LONG, LONG // 2).leading()
    assert vectors.shape == (LONG // 2, LONG)
    assert left_out(vectors, moment(gradient.dense(), "right", torch.ones(40))) < LOW_RANK


def test_equal_seeds_give_equal_bases_and_another_seed_another_one() -> None:
    gradient, weights = long_gradient(300, 0.5), torch.ones(300, dtype=torch.float64)
    first, again, other = (basis_of(gradient, weights, "right", LONG, RANK, seed).leading()[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert relative_error(other, first) > LEADING
