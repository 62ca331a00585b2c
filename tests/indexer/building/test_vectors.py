"""The pass over the training set: all that it leaves, beside loops over single examples."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from indexer import BuildSpec, Task
from indexer.building.card import CardQueries, card_queries
from indexer.building.fit import fitted_method
from indexer.building.plan import make_plan
from indexer.building.progress import silent
from indexer.building.selection import selected
from indexer.building.source import Source, open_source, options_of
from indexer.building.vectors import Pass, VectorRows, row_scales, write_vectors
from indexer.index.manifest import PartEntry, Plan, VectorsEntry
from indexer.index.objects import Objects
from indexer.index.store import open_store
from indexer.methods.method import Asked, Batch, Part, TrainRows
from indexer.methods.registry import method_kind
from indexer.task import content_hash, read_rows
from tests.reference import exact_scores, exact_self_influence
from tests.tiny import cross_entropy, tiny_model

ROWS = 300
ETA = 0.1  # of all three checkpoints of the tiny run
ROW = 1e-5  # of a row's norm: what another order of float32 sums changes
FLOAT32 = 1e-4  # relative: squares of float32 gradients, some of nearly certain examples
MODEL = (tiny_model(), cross_entropy)


@pytest.fixture(scope="module")
def source(task: Task, run: Path) -> Source:
    """The tiny run at its three checkpoints."""
    spec = BuildSpec(run)
    return open_source(task, selected(spec)[0], options_of(spec))


@pytest.fixture
def plan(run: Path) -> Plan:
    return make_plan(BuildSpec(run, batch_size=64), bytes_per_example=1000, channels_last=False)


@pytest.fixture
def exact(source: Source, plan: Plan) -> Pass:
    """Vectors that are the gradients themselves."""
    parameters = {"projection": {"name": "identity"}}
    return Pass(method_kind("tracin").open(source.model, source.etas, parameters, {}), None, plan)


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    (tmp_path / "objects").mkdir()
    return Objects(tmp_path / "objects")


@pytest.fixture
def queries(task: Task) -> CardQueries:
    found = card_queries(task, 9)
    assert found is not None
    return found


def stored(of: Pass, rows: VectorRows, objects: Objects) -> np.ndarray:
    """The vectors as float32 shards hold them."""
    width = of.method.parts[-1].stop
    parts = [PartEntry(name="all", start=0, stop=width)]
    total = sum(shard.rows for shard in rows.shards)
    entry = VectorsEntry(dtype="<f4", rows=total, width=width, parts=parts, shards=rows.shards)
    return np.concatenate(list(open_store(objects, entry)))


def test_one_pass_leaves_what_loops_over_examples_give(
    task: Task, source: Source, exact: Pass, objects: Objects, queries: CardQueries
) -> None:
    found = write_vectors(task, exact, queries, objects, silent)
    train, states = read_rows(task.train, range(ROWS)), source.weights.files
    few = zip(*(torch.split(part, 7) for part in train), strict=True)
    rows = stored(exact, found, objects)
    expected = torch.cat([exact.method.train_rows(batch).vectors for batch in few]).numpy()
    assert (np.linalg.norm(rows - expected, axis=1) <= ROW * np.linalg.norm(expected, axis=1)).all()
    norms = exact_self_influence(MODEL, states, [ETA] * 3, train).numpy()
    assert found.self_influence is not None
    np.testing.assert_allclose(found.self_influence, norms, rtol=FLOAT32)
    assert list(found.content) == [content_hash(x, y) for x, y in zip(*train, strict=True)]
    scores = exact_scores(MODEL, states, [ETA] * 3, queries.batch, train).numpy()
    assert found.exact is not None and found.exact.shape == (9, ROWS)
    asked = exact_self_influence(MODEL, states, [ETA] * 3, queries.batch).sum(1).sqrt().numpy()
    assert (np.abs(found.exact - scores) <= ROW * np.outer(asked, np.sqrt(norms.sum(1)))).all()


def test_coded_rows_are_the_vectors_within_their_codes(
    task: Task, source: Source, run: Path, plan: Plan, objects: Objects
) -> None:
    spec = BuildSpec(run, bytes_per_example=100)
    ready, _ = fitted_method(task, spec, source, plan, None, silent)
    found = write_vectors(task, ready, None, objects, silent)
    assert ready.code is not None and found.self_influence is not None
    data = b"".join(objects.path(shard.object).read_bytes() for shard in found.shards)
    records = np.frombuffer(data, np.uint8).reshape(ROWS, ready.row_bytes)
    vectors = ready.method.train_rows(read_rows(task.train, range(ROWS))).vectors.numpy()
    norms = np.sqrt(found.self_influence.sum(1))
    np.testing.assert_allclose(records[:, :4].copy().view("<f4")[:, 0], norms, rtol=ROW)
    assert (ready.code.outside(vectors, records) <= ROW * norms).all()
    assert found.exact is None


def test_the_pass_is_told_batch_by_batch(task: Task, exact: Pass, objects: Objects) -> None:
    told: list[tuple[str, int, int]] = []
    write_vectors(task, exact, None, objects, lambda *stage: told.append(stage))
    assert told == [("vectors", done, ROWS) for done in (64, 128, 192, 256, 300)]


def test_shards_make_no_difference(
    task: Task, exact: Pass, objects: Objects, queries: CardQueries, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = write_vectors(task, exact, queries, objects, silent)
    monkeypatch.setattr("indexer.building.plan.SHARD_BATCHES", 2)
    many = write_vectors(task, exact, queries, objects, silent)
    assert [shard.rows for shard in one.shards] == [300] and [shard.rows for shard in many.shards] == [128, 128, 44]
    assert stored(exact, one, objects).tobytes() == stored(exact, many, objects).tobytes()
    assert list(one.content) == list(many.content)
    for left, right in ((one.self_influence, many.self_influence), (one.exact, many.exact)):
        assert left is not None and right is not None and left.tobytes() == right.tobytes()


@dataclass(frozen=True)
class Means:
    """A method of one number, which has neither self-influence nor exact scores."""

    explains: frozenset[str] = frozenset({"loss"})
    parts: tuple[Part, ...] = (Part("mean", 0, 1),)
    exact_vectors: bool = False
    parameters: Mapping[str, Any] | None = None
    random_check: Mapping[str, list[float]] | None = None

    def asked(self, queries: Batch) -> Asked | None:
        return None

    def train_rows(self, batch: Batch, asked: Asked | None = None) -> TrainRows:
        assert asked is None
        return TrainRows(batch[0].flatten(1).mean(1, keepdim=True), None)

    def query_vectors(self, batch: Batch) -> tuple[Tensor, Tensor]:
        raise AssertionError("a pass asks for no query vectors")

    def exact(self, queries: Batch, train: Iterable[Batch]) -> Iterable[tuple[Tensor, Tensor]]:
        raise AssertionError("a pass asks for no exact scores of its own")


def test_a_method_may_have_neither_norms_nor_exact_scores(
    task: Task, plan: Plan, objects: Objects, queries: CardQueries
) -> None:
    ready = Pass(Means(), None, plan)  # type: ignore[arg-type]  # None stands for what the pass does not read
    found = write_vectors(task, ready, queries, objects, silent)
    assert (found.self_influence, found.exact) == (None, None)
    expected = read_rows(task.train, range(ROWS))[0].mean((1, 2, 3))
    np.testing.assert_allclose(stored(ready, found, objects)[:, 0], expected, rtol=ROW)


def test_rows_are_relative_to_the_true_norm_or_else_their_own() -> None:
    vectors = np.array([[3.0, 4.0], [0.0, 0.0]], np.float32)
    assert row_scales(vectors, None).tolist() == [5, 0]
    assert row_scales(vectors, torch.tensor([[9.0, 16.0, 144.0], [0.0, 0.0, 4.0]])).tolist() == [13, 2]
    assert row_scales(vectors, None).dtype == np.float32


def test_a_row_takes_four_bytes_a_number_without_a_code(exact: Pass) -> None:
    assert exact.row_bytes == 4 * 410 * 3
