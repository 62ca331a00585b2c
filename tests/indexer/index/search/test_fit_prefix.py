"""A fitted prefix against its definition in float64, row by row."""

from pathlib import Path

import numpy as np
import pytest

from indexer.atomic import TEMPORARY
from indexer.index.fit_code import coordinate_gains
from indexer.index.objects import Objects
from indexer.index.search import fit_prefix as module
from indexer.index.search.fit_prefix import fit_prefix
from indexer.index.search.prefix import open_prefix
from tests.heavy import fitted_prefix, heavy_vectors, sharded

CLOSE = 3e-6  # relative to a row's norm: bounds are float32 rounded up, and 1e-6 is added to what is outside


def test_sides_are_norm_rest_and_error_of_every_row(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCK", 30)
    rows = heavy_vectors(rng, 200, 9)
    prefix = fitted_prefix(sharded(rows, 64), tmp_path, 4)
    assert prefix.store.code is not None
    found = {name: prefix.sides[name] for name in ("norm", "rest", "error")}
    for place, position in enumerate(prefix.sides["position"].tolist()):
        row = rows[position].astype(np.float64)
        leading = prefix.rotation.T @ row
        expected = {
            "norm": np.linalg.norm(row),
            "rest": np.linalg.norm(row - prefix.rotation @ leading),
            "error": np.linalg.norm(leading - prefix.store.row(place)),
        }
        for name, true in expected.items():
            assert true <= found[name][place] <= true + CLOSE * np.linalg.norm(row)


def test_directions_are_those_of_most_energy(tmp_path: Path, rng: np.random.Generator) -> None:
    rows = heavy_vectors(rng, 400, 6) + 1
    prefix = fitted_prefix(sharded(rows, 100), tmp_path, 2)
    left = np.linalg.svd(rows.astype(np.float64), full_matrices=False)[2][:2]
    assert np.abs(np.linalg.svd(left @ prefix.rotation)[1] - 1).max() < 1e-6  # the same plane


def test_equal_rows_give_equal_objects_however_they_are_sharded(tmp_path: Path, rng: np.random.Generator) -> None:
    rows = heavy_vectors(rng, 300, 9)
    entries = [fit_prefix(sharded(rows, size), Objects(tmp_path / str(size)), 4) for size in (300, 300, 41)]
    assert entries[0] == entries[1] == entries[2]


def test_a_coordinate_costs_a_byte_and_a_row_20_more(tmp_path: Path, rng: np.random.Generator) -> None:
    entry = fit_prefix(sharded(heavy_vectors(rng, 100, 9), 100), Objects(tmp_path), 5)
    assert [shard.object.bytes for shard in entry.vectors.shards] == [100 * (4 + 5)]
    assert entry.sides.bytes == 100 * 16
    assert (entry.vectors.rows, entry.vectors.width) == (100, 5)


@pytest.mark.parametrize("rows", [np.zeros((50, 4)), np.eye(4)[:1].repeat(50, axis=0)])
def test_rows_without_or_with_one_direction_have_a_prefix(tmp_path: Path, rows: np.ndarray) -> None:
    objects, store = Objects(tmp_path), sharded(rows.astype(np.float32), 50)
    prefix = open_prefix(objects, fit_prefix(store, objects, 3), store)
    [chunk] = prefix.bounded(np.ones(4))
    assert np.all(np.abs(rows[0].sum() - chunk.estimates) <= chunk.slack)
    assert len(chunk.estimates) == 50


@pytest.mark.parametrize(("block", "run", "size"), [(30, 50, 64), (7, 13, 300), (4096, 1, 41), (100, 300, 300)])
def test_rows_sorted_in_runs_are_those_sorted_at_once(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, block: int, run: int, size: int
) -> None:
    """At once: records and sides of all rows, in the order of their norms, ties by position."""
    rows = heavy_vectors(rng, 300, 9)
    rows[rng.integers(0, 300, 90)] = rows[5]
    monkeypatch.setattr(module, "BLOCK", block)
    monkeypatch.setattr(module, "RUN", run)
    objects = Objects(tmp_path)
    prefix = fitted_prefix(sharded(rows, size), tmp_path, 4)
    assert prefix.store.code is not None
    norms = np.linalg.norm(rows.astype(np.float64), axis=1)
    order = np.argsort(-norms, kind="stable")
    leading = rows[order].astype(np.float64) @ prefix.rotation
    records = prefix.store.code.encode(leading, norms[order])
    sides = module._sides(order, norms[order], leading, prefix.store.code.decode(records))
    assert prefix.store.stored(np.arange(300)).tobytes() == records.tobytes()
    assert prefix.sides.tobytes() == sides.tobytes()
    assert all(not path.name.startswith(TEMPORARY) for path in objects.folder.iterdir())


def test_a_sample_in_blocks_gives_the_code_of_a_sample_at_once(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = heavy_vectors(rng, 300, 9)
    prefix = fitted_prefix(sharded(rows, 300), tmp_path / "once", 4)
    sample = rows.astype(np.float64)
    gains = coordinate_gains(sample @ prefix.rotation / np.linalg.norm(sample, axis=1)[:, None])
    monkeypatch.setattr(module, "BLOCK", 30)
    found = module._fit_code(sharded(rows, 64), np.arange(300), prefix.rotation, np.linalg.norm(sample, axis=1))
    assert found.bits.tolist() == [8] * 4
    assert np.allclose(found.step, gains.step8, rtol=1e-6, atol=0)  # float32
