"""Survivors against brute force: nothing that can be among the first k is lost, and most of the rest is not read."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from indexer.index.search import prefix as prefix_module
from indexer.index.search.bounds import End, survivors
from indexer.index.search.prefix import Bounded, Prefix
from tests.heavy import brute_force, fitted_prefix, heavy_vectors, sharded

NUMBERS = st.integers(-3, 3).map(float)


def left_by(prefix: Prefix, rows: np.ndarray, query: np.ndarray, k: int, mask: np.ndarray | None) -> list[set[int]]:
    """Return the positions that bounds leave in each direction."""
    double = query.astype(np.float64)
    ends = survivors(prefix, query, k, lambda positions: rows[positions] @ double, mask)
    return [set(prefix.positions(end.left(len(rows))[0]).tolist()) for end in ends]


@given(
    rows=arrays(np.float32, st.tuples(st.integers(1, 60), st.just(4)), elements=NUMBERS),
    query=arrays(np.float32, 4, elements=NUMBERS),
    k=st.integers(1, 20),
    share=st.sampled_from([0.1, 0.5, 1.0]),
    numbers=st.integers(1, 40),
)
@settings(max_examples=80, deadline=None, derandomize=True)
def test_all_that_are_among_the_first_k_are_left_ties_included(
    tmp_path_factory: pytest.TempPathFactory, rows: np.ndarray, query: np.ndarray, k: int, share: float, numbers: int
) -> None:
    prefix = fitted_prefix(sharded(rows, 17), tmp_path_factory.mktemp("prefix"), 2)
    mask = np.random.default_rng(len(rows)).random(len(rows)) < share
    allowed = np.flatnonzero(mask)
    scores = (rows @ query)[allowed]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefix_module, "CHUNK_NUMBERS", numbers)
        found = left_by(prefix, rows, query, k, None if share == 1 else mask)
    for left, direction in zip(found, (scores, -scores), strict=True):
        best = brute_force(direction, k) if len(allowed) else set()
        assert set(allowed[list(best)].tolist()) <= left <= set(allowed.tolist())


def test_few_of_many_rows_are_read_and_fewer_are_left(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, query = heavy_vectors(rng, 5000, 40), rng.standard_normal(40)
    prefix = fitted_prefix(sharded(rows, 600), tmp_path, 16)
    monkeypatch.setattr(prefix_module, "CHUNK_NUMBERS", 16 * 200)
    chunks, read = prefix.bounded, []

    def counted(query: np.ndarray) -> Iterator[Bounded]:
        for chunk in chunks(query):
            read.append(len(chunk.estimates))
            yield chunk

    monkeypatch.setattr(Prefix, "bounded", lambda _, query: counted(query))
    left = left_by(prefix, rows, query, 10, None)
    assert all(10 <= len(positions) < 100 for positions in left)
    assert sum(read) < 2500


def taken(end: End) -> End:
    """Give an end five rows, of products 1 to 5 within a half."""
    end.add(np.arange(10, 15), np.arange(1, 6, dtype=np.float32), np.full(5, 0.5, np.float32))
    return end


@pytest.mark.parametrize(
    ("sign", "known", "left"),
    [
        (1, [4.6, 3.6], {13, 14}),  # two have 3.6 or more, and 12 has no more than 3.5
        (1, [4.6, 3.5], {12, 13, 14}),
        (1, [4.6], {10, 11, 12, 13, 14}),
        (-1, [1.4, 1.6], {10, 11}),
        (-1, [1.4, 1.6, 5.0, 5.0], {10, 11}),
    ],
)
def test_rows_are_out_when_two_others_are_surely_better(sign: int, known: list[float], left: set[int]) -> None:
    end = taken(End(sign, 2))
    end.learn(np.array(known))
    places, all_of_them = end.left(100)
    assert (set(places.tolist()), all_of_them) == (left, True)


def test_what_was_learnt_is_not_forgotten_and_later_rows_are_held_against_it() -> None:
    end = End(1, 1)
    for known in (3.0, 2.0):
        end.learn(np.array([known]))
    assert taken(end).left(100)[0].tolist() == [12, 13, 14]


@pytest.mark.parametrize(("sign", "best"), [(1, {14, 13}), (-1, {10, 11})])
def test_of_too_many_those_that_look_best_are_left_and_that_is_said(sign: int, best: set[int]) -> None:
    places, all_of_them = taken(End(sign, 4)).left(2)
    assert (set(places.tolist()), all_of_them) == (best, False)


def test_nothing_is_left_of_nothing() -> None:
    places, all_of_them = End(1, 3).left(10)
    assert (places.tolist(), all_of_them) == ([], True)


def test_masked_chunks_do_not_keep_thresholds_down(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = heavy_vectors(rng, 3000, 20)
    prefix = fitted_prefix(sharded(rows, 600), tmp_path, 16)
    monkeypatch.setattr(prefix_module, "CHUNK_NUMBERS", 16 * 100)
    mask = np.ones(3000, bool)
    mask[prefix.positions(np.arange(1000))] = False
    assert all(10 <= len(left) < 400 for left in left_by(prefix, rows, rng.standard_normal(20), 10, mask))


def test_what_is_no_number_may_be_anything() -> None:
    end = taken(End(1, 1))
    end.learn(np.array([9.0]))
    end.add(np.array([3]), np.array([np.nan], np.float32), np.array([np.inf], np.float32))
    assert end.left(10)[0].tolist() == [3]
