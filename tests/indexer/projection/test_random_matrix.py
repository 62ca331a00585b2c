"""Random matrices: pinned values, an independent route to them, their distribution and their independence."""

import hashlib
from statistics import NormalDist

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.projection.random_matrix import normal_matrix, whole_numbers

ROUNDING = 1e-6  # relative, of float32, which rounds at 6e-8; the inverse distribution functions agree to 1e-12

PLACE = (2, "fc.weight", "left")
PINNED = [0.22367257, 0.41460857, 0.25101975, -0.002402398, 1.0925514, -0.15683797, 0.092581818, 0.50326514]
WHOLE = [11285816, 13363207, 11612855, 8356448, 16534942, 6323057, 9620888, 14141846]


def halves(count: int, seed: int, place: tuple[int, str, str]) -> list[int]:
    """The definition of the random bits, word by word: hash to key, Philox words, little halves first."""
    key = hashlib.sha256(repr((seed, *place)).encode()).digest()
    philox = np.random.Philox(key=int.from_bytes(key[:16], "little"))
    found = []
    for _ in range(count // 2 + 1):
        word = int(philox.random_raw())
        found += [word % 2**32, word // 2**32]
    return found[:count]


def by_plain_python(count: int, variance: float, seed: int, place: tuple[int, str, str]) -> list[float]:
    """The definition, number by number: the inverse normal of every half word."""
    return [NormalDist().inv_cdf((half + 0.5) / 2**32) * variance**0.5 for half in halves(count, seed, place)]


def test_pinned_values() -> None:
    matrix = normal_matrix((2, 4), 0.25, seed=7, place=PLACE)
    assert matrix.dtype == torch.float32
    assert matrix.flatten().tolist() == pytest.approx(PINNED, rel=ROUNDING)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    variance=st.floats(1e-4, 10),
    seed=st.integers(0, 2**63),
    checkpoint=st.integers(0, 100),
    parameter=st.text(max_size=20),
)
def test_an_independent_route_gives_the_same(
    shape: tuple[int, int], variance: float, seed: int, checkpoint: int, parameter: str
) -> None:
    place = (checkpoint, parameter, "G")
    found = normal_matrix(shape, variance, seed=seed, place=place)
    expected = by_plain_python(shape[0] * shape[1], variance, seed, place)
    assert found.shape == shape
    assert found.flatten().tolist() == pytest.approx(expected, rel=ROUNDING)


def test_mean_and_variance_and_shape_of_the_distribution() -> None:
    x = normal_matrix((400, 500), 1.0, seed=0, place=PLACE).double().flatten()
    assert abs(x.mean().item()) < 4 / len(x) ** 0.5  # 4 standard errors
    assert abs(x.var().item() - 1) < 4 * (2 / len(x)) ** 0.5
    assert abs((x**4).mean().item() - 3) < 4 * (96 / len(x)) ** 0.5
    assert torch.isfinite(x).all() and x.abs().max() < 6.5


def test_variance_scales() -> None:
    one, quarter = (normal_matrix((5, 6), v, seed=0, place=PLACE) for v in (1.0, 0.25))
    assert torch.equal(quarter, one / 2)


@pytest.mark.parametrize(
    ("seed", "place"),
    [(1, PLACE), (0, (3, *PLACE[1:])), (0, (2, "fc.bias", "left")), (0, (2, "fc.weight", "right"))],
    ids=["seed", "checkpoint", "parameter", "block"],
)
def test_another_place_is_independent(seed: int, place: tuple[int, str, str]) -> None:
    here = normal_matrix((100, 200), 1.0, seed=0, place=PLACE)
    there = normal_matrix((100, 200), 1.0, seed=seed, place=place)
    assert not (here == there).any()
    assert abs((here * there).mean().item()) < 4 / here.numel() ** 0.5  # 4 standard errors of a correlation
    some, others = (whole_numbers(20_000, 100, seed=s, place=p) for s, p in ((0, PLACE), (seed, place)))
    equal = (some == others).double().mean().item()
    assert abs(equal - 0.01) < 4 * (0.01 * 0.99 / 20_000) ** 0.5  # one in a hundred by chance


def test_nothing_else_enters() -> None:
    expected = normal_matrix((3, 5), 1.0, seed=0, place=PLACE)
    torch.manual_seed(99)
    normal_matrix((3, 5), 1.0, seed=1, place=PLACE)
    assert torch.equal(normal_matrix((3, 5), 1.0, seed=0, place=PLACE), expected)


def test_rows_and_columns_of_one_matrix_are_independent() -> None:
    x = normal_matrix((300, 300), 1.0, seed=0, place=PLACE).double()
    correlations = (x @ x.T / 300).fill_diagonal_(0)
    assert correlations.abs().max() < 6 / 300**0.5  # 45,000 correlations of standard error 1/sqrt(300)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    count=st.integers(1, 50),
    below=st.integers(1, 2**24),
    seed=st.integers(0, 2**63),
    checkpoint=st.integers(0, 100),
    parameter=st.text(max_size=20),
)
def test_whole_numbers_by_an_independent_route(
    count: int, below: int, seed: int, checkpoint: int, parameter: str
) -> None:
    place = (checkpoint, parameter, "entries")
    found = whole_numbers(count, below, seed=seed, place=place)
    assert found.dtype == torch.float32
    assert found.tolist() == [half * below // 2**32 for half in halves(count, seed, place)]


def test_pinned_whole_numbers() -> None:
    assert whole_numbers(8, 2**24, seed=7, place=PLACE).tolist() == WHOLE


def test_whole_numbers_are_uniform_and_pairs_of_them_too() -> None:
    drawn = whole_numbers(60_000, 6, seed=0, place=PLACE).long()
    for counts in (drawn.bincount(), (6 * drawn[::2] + drawn[1::2]).bincount()):
        expected = counts.sum() / len(counts)
        chi_square = ((counts - expected) ** 2 / expected).sum().item()
        freedom = len(counts) - 1
        assert len(counts) in (6, 36) and abs(chi_square - freedom) < 4 * (2 * freedom) ** 0.5  # 4 standard deviations
