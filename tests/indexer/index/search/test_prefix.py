"""The prefix: its bounds hold for any rows and queries, and files that are not one are refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from indexer.errors import CorruptIndexError
from indexer.index.code import Code
from indexer.index.manifest import CodeEntry, PrefixEntry
from indexer.index.objects import Objects
from indexer.index.search import prefix as prefix_module
from indexer.index.search.fit_prefix import fit_prefix
from indexer.index.search.prefix import SIDES, Prefix, open_prefix
from indexer.index.store import VectorStore
from tests.heavy import fitted_prefix, heavy_vectors, sharded

NUMBERS = st.floats(-100, 100, width=32).filter(lambda x: x == 0 or abs(x) > 1e-3)


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    """Rows, a query and a width of the prefix: one coordinate to all."""
    width = draw(st.integers(1, 6))
    rows = draw(arrays(np.float32, (draw(st.integers(1, 40)), width), elements=NUMBERS))
    return rows, draw(arrays(np.float32, width, elements=NUMBERS)), draw(st.integers(1, width))


def check_bounds(prefix: Prefix, rows: np.ndarray, query: np.ndarray) -> None:
    """Every product is within its slack, and none from a chunk on is further from 0 than it says."""
    products = rows.astype(np.float64) @ query.astype(np.float64)
    seen = 0
    for chunk in prefix.bounded(query):
        assert chunk.first == seen
        seen += len(chunk.estimates)
        true = products[prefix.positions(np.arange(chunk.first, seen))]
        assert np.all(np.abs(true - chunk.estimates) <= chunk.slack)
        assert np.all(np.abs(products[prefix.positions(np.arange(chunk.first, len(rows)))]) <= chunk.most)
    assert seen == len(prefix) == len(rows)


@given(problems(), st.integers(1, 100))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_products_are_within_their_bounds(
    tmp_path_factory: pytest.TempPathFactory, problem: tuple[np.ndarray, np.ndarray, int], numbers: int
) -> None:
    rows, query, width = problem
    prefix = fitted_prefix(sharded(rows, 13), tmp_path_factory.mktemp("prefix"), width)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefix_module, "CHUNK_NUMBERS", numbers)
        check_bounds(prefix, rows, query)


def test_bounds_hold_for_rows_that_the_directions_miss(tmp_path: Path, rng: np.random.Generator) -> None:
    rows = heavy_vectors(rng, 500, 40)
    prefix = fitted_prefix(sharded(rows, 500), tmp_path, 3)
    for query in rng.standard_normal((20, 40)):
        check_bounds(prefix, rows, query)
        check_bounds(prefix, rows, query - prefix.rotation @ (query @ prefix.rotation))


def test_bounds_are_tight_where_the_directions_hold_all(tmp_path: Path, rng: np.random.Generator) -> None:
    rows = heavy_vectors(rng, 500, 8)
    [chunk] = fitted_prefix(sharded(rows, 500), tmp_path, 8).bounded(np.ones(8))
    assert np.median(chunk.slack / chunk.most) < 1e-2  # 8 bits a coordinate lose about 1/256 of its range


def test_rows_are_read_by_their_norms_from_the_highest_down(tmp_path: Path, rng: np.random.Generator) -> None:
    rows = heavy_vectors(rng, 100, 6)
    prefix = fitted_prefix(sharded(rows, 7), tmp_path, 4)
    assert prefix.positions(np.arange(100)).tolist() == np.argsort(-np.linalg.norm(rows, axis=1)).tolist()


ROWS = np.array([[3, 0, 0], [0, 2, 0], [0, 0, 1], [1, 1, 1]], np.float32)


def written(objects: Objects) -> tuple[VectorStore, PrefixEntry]:
    store = sharded(ROWS, 4)
    return store, fit_prefix(store, objects, 2)


def sides_of(objects: Objects, entry: PrefixEntry) -> np.ndarray:
    return np.frombuffer(objects.path(entry.sides).read_bytes(), SIDES).copy()


@pytest.mark.parametrize("name", ["norm", "rest", "error"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
def test_bounds_that_are_none_are_refused(tmp_path: Path, name: str, bad: float) -> None:
    objects = Objects(tmp_path)
    store, entry = written(objects)
    sides = sides_of(objects, entry)
    sides[name][3] = bad
    forged = entry.model_copy(update={"sides": objects.add(sides.tobytes())})
    with pytest.raises(CorruptIndexError, match="the sides of the search are not bounds from 0 on"):
        open_prefix(objects, forged, store)


def test_norms_that_rise_are_refused(tmp_path: Path) -> None:
    objects = Objects(tmp_path)
    store, entry = written(objects)
    forged = entry.model_copy(update={"sides": objects.add(sides_of(objects, entry)[::-1].tobytes())})
    with pytest.raises(CorruptIndexError, match="by norms that descend; rebuild the search of the index"):
        open_prefix(objects, forged, store)


@pytest.mark.parametrize("position", [0, 4, 2**32 - 1])
def test_a_position_that_is_named_twice_or_is_none_is_refused(tmp_path: Path, position: int) -> None:
    objects = Objects(tmp_path)
    store, entry = written(objects)
    sides = sides_of(objects, entry)
    sides["position"] = [0, 1, 2, position]
    forged = entry.model_copy(update={"sides": objects.add(sides.tobytes())})
    with pytest.raises(CorruptIndexError, match="the sides of the search do not name every row once"):
        open_prefix(objects, forged, store)


@pytest.mark.parametrize("keep", [47, 64 + 16])
def test_sides_of_other_rows_are_refused(tmp_path: Path, keep: int) -> None:
    objects = Objects(tmp_path)
    store, entry = written(objects)
    data = (sides_of(objects, entry).tobytes() + bytes(16))[:keep]
    forged = entry.model_copy(update={"sides": objects.add(data)})
    with pytest.raises(CorruptIndexError, match="does not hold 4 rows of a position and three numbers"):
        open_prefix(objects, forged, store)


def test_a_prefix_of_more_rows_than_there_are_is_refused(tmp_path: Path) -> None:
    objects = Objects(tmp_path)
    _, entry = written(objects)
    with pytest.raises(CorruptIndexError, match="the search covers 4 rows, and the index has 3; rebuild the search"):
        open_prefix(objects, entry, sharded(ROWS[:3], 3))


def test_a_code_of_half_bytes_is_refused(tmp_path: Path) -> None:
    objects = Objects(tmp_path)
    store, entry = written(objects)
    code = Code(np.array([8, 4], np.uint8), np.ones(2, np.float32))
    [shard] = entry.vectors.shards
    changes: dict[str, Any] = {
        "code": CodeEntry(object=objects.add(code.tensors()), row_bytes=code.row_bytes),
        "shards": [shard.model_copy(update={"object": objects.add(bytes(4 * code.row_bytes))})],
    }
    forged = entry.model_copy(update={"vectors": entry.vectors.model_copy(update=changes)})
    with pytest.raises(CorruptIndexError, match="the search has coordinates of 4 bits, which it never writes"):
        open_prefix(objects, forged, store)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, r"expected \{'rotation': \('float64', \(3, 2\)\)\}, found \{\}"),
        ({"rotation": np.eye(2)}, r"found \{'rotation': \('float64', \(2, 2\)\)\}"),
        ({"rotation": np.eye(3, 2, dtype=np.float32)}, r"found \{'rotation': \('float32', \(3, 2\)\)\}"),
        ({"rotation": np.eye(3, 2) * 1.001}, "the columns of the search's rotation are not orthonormal"),
        ({"rotation": np.full((3, 2), np.nan)}, "the columns of the search's rotation are not orthonormal"),
    ],
)
def test_a_rotation_that_is_none_is_refused(tmp_path: Path, tensors: dict[str, Any], message: str) -> None:
    objects = Objects(tmp_path)
    store, entry = written(objects)
    forged = entry.model_copy(update={"rotation": objects.add(safetensors.numpy.save(tensors))})
    with pytest.raises(CorruptIndexError, match=message):
        open_prefix(objects, forged, store)


def test_a_rotation_that_is_not_safetensors_is_refused(tmp_path: Path) -> None:
    objects = Objects(tmp_path)
    store, entry = written(objects)
    forged = entry.model_copy(update={"rotation": objects.add(b"no tensors")})
    with pytest.raises(CorruptIndexError, match="the rotation of the search is not safetensors; rebuild the search"):
        open_prefix(objects, forged, store)
