"""Side data: what goes in comes out, whether by batches, by shards or by a file."""

import numpy as np
import pytest

from indexer.building.side import Hashes, Side, SideWriter, read_side, side_of

TEXTS = [f"{i:032x}" for i in (0, 2**128 - 1, 7, 12345678901234567890)]


def side(rng: np.random.Generator, start: int, stop: int) -> Side:
    shape = (stop - start, 3)
    return side_of(TEXTS[start:stop], rng.random(shape, np.float32), rng.random(shape, np.float32))


def assert_equal(found: Side, expected: Side) -> None:
    for name in ("content", "self_influence", "scores"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_hashes_are_texts_again() -> None:
    found = Hashes(side_of(TEXTS).content)
    assert list(found) == TEXTS and len(found) == 4
    with pytest.raises(IndexError):
        found[4]


def test_a_file_holds_all_of_it(rng: np.random.Generator) -> None:
    whole = side(rng, 0, 4)
    assert_equal(read_side(whole.to_bytes()), whole)
    bare = read_side(side_of(TEXTS).to_bytes())
    assert bare.self_influence is None and bare.scores is None and len(bare) == 4


def test_parts_become_one_whole_in_order(rng: np.random.Generator) -> None:
    parts = [side(rng, 0, 1), side(rng, 1, 4)]
    writer = SideWriter(4)
    for part in parts:
        writer.add(part)
    found = writer.finish()
    assert list(Hashes(found.content)) == TEXTS
    np.testing.assert_array_equal(found.self_influence, np.concatenate([p.self_influence for p in parts]))
    np.testing.assert_array_equal(found.scores, np.concatenate([p.scores for p in parts], axis=1))


def test_a_part_that_is_missing_is_our_fault(rng: np.random.Generator) -> None:
    writer = SideWriter(4)
    writer.add(side(rng, 0, 3))
    with pytest.raises(AssertionError, match="expected 4 rows, found 3"):
        writer.finish()


def test_scores_are_kept_a_query_a_row(rng: np.random.Generator) -> None:
    scores = rng.random((4, 2), np.float32)
    found = side_of(TEXTS, None, scores).scores
    np.testing.assert_array_equal(found, scores.T)
