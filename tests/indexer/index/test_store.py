"""The vector store, byte by byte: what is written, what is read back, what is refused."""

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.errors import BuildError, CorruptIndexError
from indexer.index.code import Code
from indexer.index.manifest import CodeEntry, PartEntry, ShardEntry, VectorsEntry
from indexer.index.objects import Objects
from indexer.index.store import VectorWriter, map_rows, open_store

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


CODE = Code(np.array([4, 8, 4, 0], np.uint8), np.array([0.25, 0.125, 0.5, 0], np.float32))
ROWS = np.array([[1, -2, 0.4, 9], [0, 0, 0, 0], [-99, 99, -0.1, 3]], dtype=np.float32)
SCALES = np.array([2, 0, 1], np.float32)


def coded(objects: Objects, *, shard_rows: int = 1000, code: Code = CODE) -> VectorsEntry:
    """Write three coded rows, a row at a time, and return their entry in a manifest."""
    writer = VectorWriter(objects, 4, code, shard_bytes=code.row_bytes * shard_rows)
    for i in range(3):
        writer.add(ROWS[i : i + 1], SCALES[i : i + 1])
    return coded_entry(objects, writer.finish(), code)


def coded_entry(objects: Objects, shards: list[ShardEntry], code: Code) -> VectorsEntry:
    of = CodeEntry(object=objects.add(code.tensors()), row_bytes=code.row_bytes)
    fields = {**dict(entry(4, shards)), "dtype": "coded", "code": of}
    return VectorsEntry.model_validate(fields)


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
    with pytest.raises(IndexError, match=f"expected positions from 0 to 2, found {position} to {position}"):
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


@pytest.mark.parametrize("shard_rows", [1, 2, 1000])
def test_coded_rows_are_the_records_of_their_code(objects: Objects, shard_rows: int) -> None:
    found = coded(objects, shard_rows=shard_rows)
    records = CODE.encode(ROWS, SCALES)
    assert b"".join(objects.path(shard.object).read_bytes() for shard in found.shards) == records.tobytes()
    store = open_store(objects, found)
    assert (len(store), store.width, store.row_bytes) == (3, 4, 6)
    assert np.concatenate(list(store)).tobytes() == CODE.decode(records).tobytes()
    assert store.scales().tolist() == SCALES.tolist()
    for position in range(3):
        assert store.row(position).tobytes() == CODE.decode(records)[position].tobytes()
        assert store.stored([position]).tolist() == [records[position].tolist()]


@pytest.mark.parametrize("shard_rows", [1, 2, 1000])
def test_rows_taken_together_are_those_taken_one_by_one(objects: Objects, shard_rows: int) -> None:
    for found in (written(objects, [ROWS], shard_rows=shard_rows), coded(objects, shard_rows=shard_rows)):
        store = open_store(objects, found)
        assert store.rows([2, 0, 2]).tolist() == [store.row(position).tolist() for position in (2, 0, 2)]
        with pytest.raises(IndexError):
            store.rows([0, 3])


@pytest.mark.parametrize("shard_rows", [1, 2, 1000])
@pytest.mark.parametrize("positions", [[], [1], [2, 0, 2, 1, 0]])
def test_products_are_those_of_the_rows_in_float64(objects: Objects, shard_rows: int, positions: list[int]) -> None:
    query = np.array([0.1, -3, 7, 1e-9])
    for found in (written(objects, [ROWS], shard_rows=shard_rows), coded(objects, shard_rows=shard_rows)):
        store = open_store(objects, found)
        expected = [float(store.row(i).astype(np.float64) @ query) for i in positions]
        assert np.allclose(store.products(query, np.array(positions, np.int64)), expected, rtol=1e-14, atol=0)


def test_rows_of_any_type_are_mapped_and_cannot_be_written(objects: Objects) -> None:
    row = np.dtype([("place", "<u4"), ("norm", "<f4")])
    rows = np.array([(1, 0.5), (2, 2.5)], row)
    shard = ShardEntry(object=objects.add(rows.tobytes()), rows=2)
    mapped = map_rows(objects, shard, row, "two numbers")
    assert mapped.tolist() == rows.tolist()
    assert not mapped.flags.writeable
    with pytest.raises(CorruptIndexError, match="does not hold 3 rows of two numbers; rebuild the index"):
        map_rows(objects, shard.model_copy(update={"rows": 3}), row, "two numbers")


@pytest.mark.parametrize("shard_rows", [2, 1000])
@pytest.mark.parametrize("numbers", [1, 4, 8, 11, 100])
def test_chunks_are_consecutive_and_as_long_as_was_asked(objects: Objects, numbers: int, shard_rows: int) -> None:
    for found in (written(objects, [ROWS], shard_rows=shard_rows), coded(objects, shard_rows=shard_rows)):
        store = open_store(objects, found)
        chunks = list(store.chunks(numbers))
        assert [start for start, _ in chunks] == np.cumsum([0, *(len(rows) for _, rows in chunks)])[:-1].tolist()
        assert all(1 <= len(rows) <= max(1, numbers // 4) for _, rows in chunks)
        assert np.concatenate([rows for _, rows in chunks]).tolist() == [store.row(i).tolist() for i in range(3)]


def test_float32_rows_have_16_bytes_and_no_code(objects: Objects) -> None:
    store = open_store(objects, written(objects, [ROWS]))
    assert (store.row_bytes, store.code) == (16, None)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
def test_a_scale_that_is_no_norm_is_not_written(objects: Objects, bad: float) -> None:
    writer = VectorWriter(objects, 4, CODE)
    writer.add(ROWS, SCALES)
    with pytest.raises(BuildError, match="the vector of training row 5 holds NaN or infinity"):
        writer.add(ROWS, np.array([1, 1, bad], np.float32))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
def test_a_stored_scale_that_is_no_norm_is_refused(objects: Objects, bad: float) -> None:
    records = CODE.encode(ROWS, np.array([1, bad, 1]))
    shard = ShardEntry(object=objects.add(records.tobytes()), rows=3)
    with pytest.raises(CorruptIndexError, match="the scale of row 1 of the vectors is not a number from 0 on; rebuild"):
        open_store(objects, coded_entry(objects, [shard], CODE))


@pytest.mark.parametrize("rows", [2, 4])
def test_a_shard_of_another_size_than_its_records_is_refused(objects: Objects, rows: int) -> None:
    [shard] = coded(objects).shards
    wrong = coded_entry(objects, [shard.model_copy(update={"rows": rows})], CODE)
    with pytest.raises(CorruptIndexError, match=f"does not hold {rows} rows of 6 bytes; rebuild the index"):
        open_store(objects, wrong)


def test_a_code_of_other_records_is_refused(objects: Objects) -> None:
    found = coded(objects)
    assert found.code is not None
    of = found.code.model_copy(update={"row_bytes": 7})
    with pytest.raises(CorruptIndexError, match=r"makes records of 6 bytes; the manifest says 7\. Rebuild"):
        open_store(objects, found.model_copy(update={"code": of}))


def test_a_code_of_other_vectors_is_refused(objects: Objects) -> None:
    wider = Code(np.append(CODE.bits, CODE.bits), np.append(CODE.step, CODE.step))
    of = CodeEntry(object=objects.add(wider.tensors()), row_bytes=wider.row_bytes)
    with pytest.raises(CorruptIndexError, match=r"the code of the vectors: expected .* rebuild the index"):
        open_store(objects, coded(objects).model_copy(update={"code": of}))


def test_a_code_that_is_missing_is_refused(objects: Objects) -> None:
    found = coded(objects)
    assert found.code is not None
    objects.path(found.code.object).unlink()
    with pytest.raises(CorruptIndexError, match=r"code of the vectors: .* is missing"):
        open_store(objects, found)


def test_stored_rows_are_copied_bit_for_bit_into_other_shards(objects: Objects) -> None:
    old = open_store(objects, coded(objects, shard_rows=1))
    writer = VectorWriter(objects, 4, CODE, shard_bytes=2 * CODE.row_bytes)
    for _, rows in old.pieces(3):
        writer.add_stored(rows)
    new = open_store(objects, coded_entry(objects, writer.finish(), CODE))
    assert [len(shard) for shard in new.shards] == [2, 1]
    assert np.concatenate(new.shards).tobytes() == np.concatenate(old.shards).tobytes()


def test_rows_are_named_from_the_first_of_a_writer(objects: Objects) -> None:
    with pytest.raises(BuildError, match="the vector of training row 4098 holds NaN or infinity"):
        VectorWriter(objects, 4, first=4096).add(np.array([[0] * 4, [1] * 4, [np.nan] * 4], np.float32))
