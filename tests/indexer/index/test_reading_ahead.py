"""What of a store's files is asked for before it is read, and that it changes nothing that is read."""

import mmap
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import indexer.index.store as module
from indexer.index.code import Code
from indexer.index.manifest import CodeEntry, PartEntry, VectorsEntry
from indexer.index.objects import Objects
from indexer.index.store import VectorStore, VectorWriter, open_store

ONES = np.ones((100, 4), np.float32)


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    return Objects(tmp_path)


def written(objects: Objects, rows: np.ndarray, shard_rows: int) -> VectorStore:
    """Write rows of 4 numbers, 16 bytes, and open them."""
    writer = VectorWriter(objects, 4, shard_bytes=16 * shard_rows)
    writer.add(rows)
    parts = [PartEntry(name="all", start=0, stop=4)]
    return open_store(objects, VectorsEntry(dtype="<f4", rows=len(rows), width=4, parts=parts, shards=writer.finish()))


Asked = list[tuple[int, int]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """The bytes of files that were asked for ahead, as they are asked for."""
    found: Asked = []
    monkeypatch.setattr(module, "_read_ahead", lambda file, first, end: found.append((first, end)))
    return found


@pytest.mark.parametrize("start", [0, 1, 6, 7, 19, 20])
@pytest.mark.parametrize(("shard_rows", "count"), [(1000, 3), (7, 3), (7, 100), (1, 1)])
def test_pieces_are_all_rows_from_one_on(objects: Objects, start: int, shard_rows: int, count: int) -> None:
    rows = np.arange(80, dtype=np.float32).reshape(20, 4)
    pieces = list(written(objects, rows, shard_rows).pieces(count, start))
    assert [first for first, _ in pieces] == [start + sum(len(p) for _, p in pieces[:i]) for i in range(len(pieces))]
    assert [row for _, piece in pieces for row in piece.tolist()] == rows[start:].tolist()
    assert all(1 <= len(piece) <= count for _, piece in pieces)


@pytest.mark.parametrize("count", [1, 5, 30])
def test_rows_in_order_are_asked_for_once_and_before_they_are_read(
    objects: Objects, asked: Asked, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(module, "AHEAD", 4 * 16)
    store = written(objects, ONES, 100)
    for start, rows in store.pieces(count, 10):
        end = 16 * (start + len(rows))
        assert min(1600, end + 4 * 16) <= asked[-1][1] <= end + 2 * 4 * 16
    assert asked[0][0] == 160 and asked[-1][1] == 1600
    assert all(one[1] == next_[0] for one, next_ in pairwise(asked))


def test_the_rest_is_not_asked_for_when_reading_ends_early(
    objects: Objects, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AHEAD", 4 * 16)
    next(written(objects, ONES, 100).pieces(5))
    assert asked == [(0, 16 * (5 + 2 * 4))]


def test_only_rows_that_lie_close_are_asked_for_together(
    objects: Objects, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "NEAR", 3 * 16)
    store = written(objects, ONES, 50)
    for sparse in ([], [7], [7, 11], [0, 99, 50], [48, 52]):
        store.stored(sparse)
        assert asked == []
    store.stored([52, 46, 49])
    assert asked == [(46 * 16, 50 * 16), (2 * 16, 3 * 16)]


class Noted(mmap.mmap):
    """A mapping that notes what it is advised, and may refuse it."""

    refusing = False

    def madvise(self, option: int, start: int = 0, length: int | None = None) -> None:
        asked = self.__dict__.setdefault("asked", [])
        asked.append((option, start, length))
        if self.refusing:
            raise BlockingIOError("no memory for that")


def test_nothing_is_read_around_a_row_that_is_waited_for(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mmap, "mmap", Noted)
    for file in written(objects, ONES, 50).files:
        assert file.__dict__["asked"] == [(mmap.MADV_RANDOM, 0, None)]


def test_requests_begin_at_pages_and_are_small(monkeypatch: pytest.MonkeyPatch) -> None:
    page = mmap.PAGESIZE
    monkeypatch.setattr(module, "AT_ONCE", 2 * page)
    with Noted(-1, 8 * page) as file:
        module._read_ahead(file, page + 5, 6 * page - 1)
        will = mmap.MADV_WILLNEED
        assert file.__dict__["asked"] == [
            (will, page, 2 * page),
            (will, 3 * page, 2 * page),
            (will, 5 * page, page - 1),
        ]


def test_a_request_that_is_refused_changes_nothing() -> None:
    with Noted(-1, mmap.PAGESIZE) as file:
        file.refusing = True
        module._read_ahead(file, 0, 100)
        assert len(file.__dict__["asked"]) == 1


def test_a_system_that_takes_no_advice_reads_the_same(
    objects: Objects, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ADVISES", False)
    rows = np.arange(80, dtype=np.float32).reshape(20, 4)
    store = written(objects, rows, 7)
    assert np.concatenate(list(store)).tolist() == store.rows(range(20)).tolist() == rows.tolist()
    assert asked == []


def test_all_scales_are_read_in_order_and_kept_apart_from_the_file(
    objects: Objects, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AHEAD", 10)
    code = Code(np.array([4, 8, 4, 0], np.uint8), np.array([0.25, 0.125, 0.5, 0], np.float32))
    writer = VectorWriter(objects, 4, code, shard_bytes=7 * code.row_bytes)
    writer.add(np.ones((20, 4)), np.arange(20.0))
    of = CodeEntry(object=objects.add(code.tensors()), row_bytes=code.row_bytes)
    parts = [PartEntry(name="all", start=0, stop=4)]
    entry = VectorsEntry(dtype="coded", rows=20, width=4, parts=parts, shards=writer.finish(), code=of)
    store = open_store(objects, entry)
    asked.clear()
    scales = store.scales()
    assert scales.tolist() == list(range(20)) and scales.flags.owndata
    assert sum(end - first for first, end in asked) == 20 * code.row_bytes
