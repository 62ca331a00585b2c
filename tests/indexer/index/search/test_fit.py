"""Which search an index gets, and what is measured of it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from indexer.errors import CorruptIndexError
from indexer.index.manifest import SearchEntry, SearchRecallEntry
from indexer.index.objects import Objects
from indexer.index.search import cascade, fit
from indexer.index.search.candidates import Candidates, View
from indexer.index.search.fit import fit_search, measure_recall, read_queries
from indexer.index.search.flat import FlatSearch
from indexer.index.store import VectorStore
from tests.heavy import heavy_vectors, sharded

COUNT, WIDTH = 400, 12
HELD_OUT = {"source": "held-out"}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits for hundreds of rows of a dozen numbers."""
    monkeypatch.setattr(fit, "FLAT_UP_TO", COUNT - 1)
    monkeypatch.setattr(fit, "WIDTHS", (2, 6, 512))
    monkeypatch.setattr(cascade, "EXACT_BELOW", 0)


@pytest.fixture
def store(rng: np.random.Generator) -> VectorStore:
    return sharded(heavy_vectors(rng, COUNT, WIDTH), 128)


@pytest.fixture
def queries(rng: np.random.Generator) -> np.ndarray:
    return heavy_vectors(rng, 9, WIDTH)


@pytest.mark.usefixtures("small")
def test_many_rows_get_a_prefix_measured_on_the_other_half_of_the_queries(
    tmp_path: Path, store: VectorStore, queries: np.ndarray
) -> None:
    entry = fit_search(store, queries, Objects(tmp_path))
    assert entry.kind == "prefix" and entry.prefix is not None and entry.recall is not None
    assert entry.prefix.vectors.width == 2
    assert entry.target == fit.TARGET
    assert entry.recall.model_dump() == {
        "k": 10,
        "queries": 4,
        "proponents": 1,
        "opponents": 1,
        "exhaustive": 1,
        **HELD_OUT,
    }


@pytest.mark.usefixtures("small")
def test_equal_rows_and_queries_give_an_equal_search(tmp_path: Path, store: VectorStore, queries: np.ndarray) -> None:
    one, other = (fit_search(store, queries, Objects(tmp_path / name)) for name in "ab")
    assert one == other


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("rows", "width"), [(COUNT - 1, WIDTH), (COUNT, fit.WIDEST + 1)])
def test_few_rows_or_wide_ones_are_scanned(tmp_path: Path, rows: int, width: int) -> None:
    store = sharded(np.ones((rows, width), np.float32), 128)
    entry = fit_search(store, np.ones((2, width)), Objects(tmp_path))
    assert (entry.kind, entry.prefix, entry.recall) == ("flat", None, None)
    assert entry.queries is not None


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("none", [None, np.empty((0, WIDTH))])
def test_without_queries_rows_of_the_store_are_asked_about(
    tmp_path: Path, store: VectorStore, none: np.ndarray | None
) -> None:
    entry = fit_search(store, none, Objects(tmp_path))
    assert (entry.kind, entry.queries, entry.target) == ("prefix", None, fit.TARGET)
    assert entry.recall is not None and (entry.recall.queries, entry.recall.source) == (fit.OWN // 2, "rows")


@pytest.mark.usefixtures("small")
def test_a_prefix_that_finds_too_little_gives_way_to_a_wider_one_and_at_last_to_a_scan(
    tmp_path: Path, store: VectorStore, queries: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def recall(search: object, flat: object, queries: Sequence[object]) -> SearchRecallEntry:
        asked.append(len(queries))
        low = len(asked) < least
        return SearchRecallEntry(k=10, queries=1, proponents=1.0, opponents=0.5 if low else 1.0, exhaustive=0.0)

    monkeypatch.setattr(fit, "measure_recall", recall)
    for least, width in ((1, 2), (2, 6), (3, WIDTH)):
        asked.clear()
        entry = fit_search(store, queries, Objects(tmp_path))
        assert entry.prefix is not None and entry.prefix.vectors.width == width
        assert asked == [5] * least + [4]
    least = 9
    assert fit_search(store, queries, Objects(tmp_path)).kind == "flat"


class Forgetful:
    """Finds the first five proponents, and no opponents; says that this is all for the first query."""

    def __init__(self, flat: FlatSearch) -> None:
        self._flat = flat

    def search(
        self, queries: np.ndarray, k: int, view: View = "dot", rows: np.ndarray | None = None
    ) -> list[Candidates]:
        """Search, and forget."""
        found = self._flat.search(queries, k, view, rows)
        return [Candidates(one.proponents[:5], [], exhaustive=i == 0) for i, one in enumerate(found)]


def test_recall_is_the_share_of_the_first_ten_in_each_direction(store: VectorStore, queries: np.ndarray) -> None:
    flat = FlatSearch(store)
    found = measure_recall(Forgetful(flat), flat, queries[:4])
    assert found is not None
    assert found.model_dump() == {
        "k": 10,
        "queries": 4,
        "proponents": 0.5,
        "opponents": 0,
        "exhaustive": 0.25,
        **HELD_OUT,
    }


def test_queries_are_kept_to_the_bit(tmp_path: Path, store: VectorStore, queries: np.ndarray) -> None:
    objects = Objects(tmp_path)
    found = read_queries(objects, fit_search(store, queries, objects), WIDTH)
    assert found is not None and found.tobytes() == queries.tobytes()
    assert read_queries(objects, SearchEntry(kind="flat"), WIDTH) is None


@pytest.mark.parametrize(
    "data",
    [
        b"no tensors",
        safetensors.numpy.save({"other": np.ones((2, WIDTH), np.float32)}),
        safetensors.numpy.save({"queries": np.ones((2, WIDTH + 1), np.float32)}),
        safetensors.numpy.save({"queries": np.ones((2, WIDTH))}),
    ],
)
def test_queries_that_are_none_are_refused(tmp_path: Path, data: bytes) -> None:
    objects = Objects(tmp_path)
    with pytest.raises(CorruptIndexError, match=r"the queries of the search.*restore them"):
        read_queries(objects, SearchEntry(kind="flat", queries=objects.add(data)), WIDTH)


@pytest.mark.usefixtures("small")
def test_queries_that_say_nothing_are_left_out(tmp_path: Path, store: VectorStore, queries: np.ndarray) -> None:
    objects, some = Objects(tmp_path), queries.copy()
    some[0], some[1], some[2, 3] = 0, np.nan, np.inf
    found = read_queries(objects, fit_search(store, some, objects), WIDTH)
    assert found is not None and found.tobytes() == queries[3:].tobytes()
    assert fit_search(store, some[:3], objects).queries is None


@pytest.mark.usefixtures("small")
def test_a_single_query_tunes_and_reports(tmp_path: Path, store: VectorStore, queries: np.ndarray) -> None:
    entry = fit_search(store, queries[:1], Objects(tmp_path))
    assert entry.kind == "prefix" and entry.recall is not None and entry.recall.queries == 1


@pytest.mark.usefixtures("small")
def test_rows_that_are_too_long_for_bounds_are_scanned(tmp_path: Path, rng: np.random.Generator) -> None:
    rows = heavy_vectors(rng, COUNT, WIDTH)
    rows[7] = 2e38
    entry = fit_search(sharded(rows, 128), None, Objects(tmp_path), target=0.9)
    assert (entry.kind, entry.target) == ("flat", 0.9)


def test_stored_queries_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    objects = Objects(tmp_path)
    data = safetensors.numpy.save({"queries": np.full((2, WIDTH), np.nan, np.float32)})
    with pytest.raises(CorruptIndexError, match="hold NaN or infinity; restore them"):
        read_queries(objects, SearchEntry(kind="flat", queries=objects.add(data)), WIDTH)


def test_a_dtype_that_numpy_lacks_is_refused(tmp_path: Path) -> None:
    header = b'{"queries":{"dtype":"BF16","shape":[1,2],"data_offsets":[0,4]}}'
    objects = Objects(tmp_path)
    data = len(header).to_bytes(8, "little") + header + bytes(4)
    with pytest.raises(CorruptIndexError, match="not safetensors"):
        read_queries(objects, SearchEntry(kind="flat", queries=objects.add(data)), 2)
