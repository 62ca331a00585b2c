"""Tombstones: exact bytes, and files that no writer of ours could have made are refused."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.errors import CorruptIndexError
from indexer.index.manifest import TombstonesEntry
from indexer.index.objects import Objects
from indexer.index.tombstones import read_tombstones, write_tombstones

ROWS = 10


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    return Objects(tmp_path / "objects")


def test_the_bytes_are_the_positions_and_nothing_else(objects: Objects) -> None:
    entry = write_tombstones(objects, np.array([1, 258], np.int64))
    assert objects.path(entry.object).read_bytes() == bytes([1, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0])
    assert entry.rows == 2


@given(st.sets(st.integers(0, ROWS - 1), min_size=1))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_what_was_written_is_read(tmp_path_factory: pytest.TempPathFactory, positions: set[int]) -> None:
    objects = Objects(tmp_path_factory.mktemp("objects"))
    entry = write_tombstones(objects, np.array(sorted(positions), np.int64))
    assert read_tombstones(objects, entry, ROWS).tolist() == sorted(positions)


def test_without_an_entry_nothing_is_deleted(objects: Objects) -> None:
    found = read_tombstones(objects, None, ROWS)
    assert (found.dtype, found.shape) == (np.dtype(np.int64), (0,))


@pytest.mark.parametrize("positions", [[], [1, 0], [1, 1], [-1, 1]])
def test_a_writer_that_errs_is_stopped(objects: Objects, positions: list[int]) -> None:
    with pytest.raises(AssertionError, match="sorted, unique, and at least one"):
        write_tombstones(objects, np.array(positions, np.int64))


@pytest.mark.parametrize(
    "positions",
    [[3, 2], [2, 2], [-1, 2], [2, ROWS], [2, 2**63 - 1], [-(2**63), 2**63 - 1]],
    ids=["unsorted", "repeated", "negative", "beyond", "far beyond", "extremes"],
)
def test_what_are_no_positions_is_refused(objects: Objects, positions: list[int]) -> None:
    entry = TombstonesEntry(object=objects.add(np.array(positions, "<i8").tobytes()), rows=len(positions))
    with pytest.raises(CorruptIndexError) as exc:
        read_tombstones(objects, entry, ROWS)
    assert str(exc.value) == (
        f"tombstones: {objects.path(entry.object)} does not hold positions from 0 to 9 in ascending order, each once; "
        "restore the index from a copy, or rebuild it"
    )


@pytest.mark.parametrize("size", [0, 7, 8, 17, 24])
def test_a_count_that_differs_is_refused(objects: Objects, size: int) -> None:
    entry = TombstonesEntry(object=objects.add(bytes(size)), rows=2)
    with pytest.raises(CorruptIndexError) as exc:
        read_tombstones(objects, entry, ROWS)
    assert str(exc.value) == (
        f"tombstones: {objects.path(entry.object)} has {size} bytes; expected 8 for each of 2 rows. "
        "Restore the index from a copy, or rebuild it"
    )


def test_a_file_that_is_cut_off_is_refused(objects: Objects) -> None:
    entry = write_tombstones(objects, np.array([1, 2], np.int64))
    objects.path(entry.object).write_bytes(bytes(8))
    with pytest.raises(CorruptIndexError, match=r"^tombstones: .* has 8 bytes; the manifest says 16"):
        read_tombstones(objects, entry, ROWS)
