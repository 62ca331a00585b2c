"""The vector store, byte by byte: what is written, what is read back, what is refused."""

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.errors import BuildError, CorruptIndexError
from indexer.index.manifest import PartEntry, ShardEntry, VectorsEntry
from indexer.index.objects import Objects
from indexer.index.store import VectorWriter, open_store

THREE_BY_FOUR = np.array([[0, 1, -2, 0.5], [1e-38, -0.0, 3e38, 7], [8, 9, 10, 11]], dtype=np.float32)


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    return Objects(tmp_path)


def written(objects: Objects, batches: Sequence[np.ndarray], *, shard_rows: int = 1000) -> VectorsEntry:
    """Write batches of rows and return their entry in a manifest."""
    width = batches[0].shape[1]
    writer = VectorWriter(objects, width, shard_bytes=4 * width * shard_rows)
    for batch in batches:
        writer.add(batch)
    return entry(width, writer.finish())


def entry(width: int, shards: list[ShardEntry]) -> VectorsEntry:
    parts = [PartEntry(name="all", start=0, stop=width)]
    return VectorsEntry(dtype="<f4", rows=sum(s.rows for s in shards), width=width, parts=parts, shards=shards)


def test_three_rows_of_four_are_48_little_endian_bytes(objects: Objects) -> None:
    [shard] = written(objects, [THREE_BY_FOUR]).shards
    expected = struct.pack("<12f", *THREE_BY_FOUR.flatten().tolist())
    assert len(expected) == 48
    assert objects.path(shard.object).read_bytes() == expected
    assert shard.object.bytes == 48


def test_big_endian_rows_are_stored_little_endian(objects: Objects) -> None:
    assert written(objects, [THREE_BY_FOUR.astype(">f4")]) == written(objects, [THREE_BY_FOUR])


@given(
    batches=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    shard_rows=st.integers(1, 7),
    width=st.integers(1, 5),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_a_round_trip_is_bit_exact_however_rows_were_batched(
    tmp_path_factory: pytest.TempPathFactory, batches: list[int], shard_rows: int, width: int, seed: int
) -> None:
    bits = np.random.default_rng(seed).integers(0, 2**32, (sum(batches), width), dtype=np.uint32)
    rows = np.where(np.isfinite(bits.view("<f4")), bits, np.uint32(1)).view("<f4")
    objects = Objects(tmp_path_factory.mktemp("store"))
    found = written(objects, np.split(rows, np.cumsum(batches)[:-1]), shard_rows=shard_rows)
    full, rest = divmod(len(rows), shard_rows)
    assert [shard.rows for shard in found.shards] == [shard_rows] * full + [rest] * (rest > 0)
    store = open_store(objects, found)
    assert len(store) == len(rows)
    assert np.concatenate(list(store)).tobytes() == rows.tobytes()
    for position in np.random.default_rng(seed).integers(0, len(rows), 8).tolist():
        assert store.row(position).tobytes() == rows[position].tobytes()


@pytest.mark.parametrize("position", [-1, 3])
def test_a_position_without_a_row_is_no_row(objects: Objects, position: int) -> None:
    with pytest.raises(IndexError):
        open_store(objects, written(objects, [THREE_BY_FOUR])).row(position)


def test_stored_rows_cannot_be_written(objects: Objects) -> None:
    [shard] = open_store(objects, written(objects, [THREE_BY_FOUR]))
    with pytest.raises(ValueError, match="read-only"):
        shard[0, 0] = 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("shard_rows", [1, 2, 1000])
def test_the_first_row_that_is_not_finite_is_named(objects: Objects, bad: float, shard_rows: int) -> None:
    second = THREE_BY_FOUR.copy()
    second[1:, 2] = bad
    with pytest.raises(BuildError, match="the vector of training row 4 holds NaN or infinity; look at that example"):
        written(objects, [THREE_BY_FOUR, second], shard_rows=shard_rows)


@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")
def test_a_number_that_float32_cannot_hold_is_refused(objects: Objects) -> None:
    with pytest.raises(BuildError, match="the vector of training row 0 holds NaN or infinity"):
        written(objects, [np.full((1, 4), 1e300)])


def test_shards_that_do_not_add_up_are_refused(objects: Objects) -> None:
    found = written(objects, [THREE_BY_FOUR]).model_copy(update={"rows": 4})
    with pytest.raises(CorruptIndexError, match="the shards do not add up to the 4 rows of the manifest; rebuild"):
        open_store(objects, found)


@pytest.mark.parametrize("rows", [2, 4])
def test_a_shard_of_another_size_than_its_rows_is_refused(objects: Objects, rows: int) -> None:
    [shard] = written(objects, [THREE_BY_FOUR]).shards
    expected = f"{shard.object.sha256} does not hold {rows} rows of 4 float32 numbers; rebuild the index"
    with pytest.raises(CorruptIndexError, match=expected):
        open_store(objects, entry(4, [shard.model_copy(update={"rows": rows})]))


@pytest.mark.parametrize("slices", [[(0, 3)], [(1, 4)], [(0, 2), (3, 4)], [(0, 3), (2, 4)], [(0, 5)], []])
def test_parts_that_do_not_cover_the_width_are_refused(objects: Objects, slices: list[tuple[int, int]]) -> None:
    parts = [PartEntry(name=str(start), start=start, stop=stop) for start, stop in slices]
    found = written(objects, [THREE_BY_FOUR]).model_copy(update={"parts": parts})
    with pytest.raises(CorruptIndexError, match="the parts of the vectors do not cover 0 to 4 without gaps"):
        open_store(objects, found)
