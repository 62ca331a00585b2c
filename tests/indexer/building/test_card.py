"""The card of a build: which examples it asks about, and its figures beside an independent measurement of the index."""

from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import create_autospec

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from indexer import Ask, BuildSpec, Task, build
from indexer.building import card as module
from indexer.building.card import NO_CARD, affordable_queries, card_queries, planned_queries, query_vectors
from indexer.checkpoints.folder import open_run
from indexer.checkpoints.weights import read_weights
from indexer.gradients.memory import held_bytes
from indexer.index.card import CardEntry
from indexer.index.versions import IndexVersion
from indexer.methods.method import Method
from indexer.task import Examples, read_rows
from tests.chosen import chosen
from tests.reference import exact_scores, top_k
from tests.tiny import cross_entropy, tiny_model

ETA = 0.1  # of all three checkpoints of the tiny run
SWAPS = 2 / (50 * 10)  # of the first ten of 50 queries: two near ties that float32 and float64 order otherwise
FLOAT32 = 1e-4  # relative, of figures over many scores: float32 gradients against float64 ones
BYTES = 64  # few, so that the figures are far from 1


def empty() -> TensorDataset:
    return TensorDataset(torch.zeros(0, 1, 28, 28), torch.zeros(0, dtype=torch.int64))


# ---- the queries ----


def test_queries_are_evenly_spaced_test_examples_at_their_own_targets(task: Task) -> None:
    found = card_queries(task, 50)
    assert found is not None and task.test is not None
    assert (found.source, found.left_out, len(found)) == ("test", (None,) * 50, 50)
    torch.testing.assert_close(found.batch, read_rows(task.test, range(1, 100, 2)), rtol=0, atol=0)


@pytest.mark.parametrize("test", [None, empty()], ids=["none", "empty"])
def test_without_test_examples_training_rows_leave_themselves_out(task: Task, test: Examples | None) -> None:
    found = card_queries(replace(task, test=test), 50)
    assert found is not None
    assert (found.source, found.left_out) == ("train", tuple(range(3, 300, 6)))
    torch.testing.assert_close(found.batch, read_rows(task.train, range(3, 300, 6)), rtol=0, atol=0)


def test_training_examples_that_serve_as_test_examples_leave_themselves_out(task: Task) -> None:
    found = card_queries(replace(task, test=task.train), 3)
    assert found is not None
    assert (found.source, found.left_out) == ("train", (50, 150, 250))


def test_no_more_are_asked_about_than_there_are(task: Task) -> None:
    found = card_queries(replace(task, test=chosen(task.train, range(3))), 50)
    assert found is not None and len(found) == 3


def test_fewer_are_planned_where_their_scores_would_fill_the_memory(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "affordable_queries", lambda *_: 50)
    method = create_autospec(Method, instance=True)  # asked for memory alone, which there is enough of
    monkeypatch.setattr(module, "SCORES_BYTES", 7 * 300 * 8 + 5)
    assert planned_queries(method, task, 50) == 7
    monkeypatch.setattr(module, "SCORES_BYTES", 300 * 8 - 1)
    assert planned_queries(method, task, 50) == 0
    found = card_queries(task, 50)
    assert found is not None and len(found) == 50  # whose scores nobody holds


def test_nothing_is_asked_where_nobody_wants_it_or_a_row_is_alone(task: Task) -> None:
    one = chosen(task.train, range(1))
    assert card_queries(task, 0) is None
    assert card_queries(replace(task, train=one, test=None), 50) is None
    assert card_queries(replace(task, train=one, test=empty()), 50) is None
    alone_but_asked = card_queries(replace(task, train=one), 50)
    assert alone_but_asked is not None and len(alone_but_asked) == 50


# ---- the card ----


@dataclass(frozen=True)
class Measured:
    """An index with its card, and the pairs (exact, estimate) of every query, themselves left out."""

    version: IndexVersion
    card: CardEntry
    pairs: list[tuple[np.ndarray, np.ndarray]]


def measured(task: Task, run: Path, folder: Path) -> Measured:
    """Build, and measure again: exact scores by the loop, the index's own from all that a query reads."""
    version = build(task, BuildSpec(run, bytes_per_example=BYTES, batch_size=64), folder)
    card = version.manifest.card
    assert card is not None
    asked_rows = range(1, 100, 2) if task.test is not None else range(3, 300, 6)
    queries = read_rows(task.test or task.train, asked_rows)
    states = [read_weights(checkpoint.path) for checkpoint in open_run(run).checkpoints]
    train = read_rows(task.train, range(300))
    exact = exact_scores((tiny_model(), cross_entropy), states, [ETA] * 3, queries, train).numpy()
    ask = Ask.open(folder, task)
    asked = [ask.index.method.query_vectors((x[None], y[None]))[0][0] for x, y in zip(*queries, strict=True)]
    rows = np.stack([ask.index.store.row(position) for position in range(300)]).astype(np.float64)
    ask.close()
    estimate = torch.stack(asked).double().numpy() @ rows.T
    pairs = list(zip(exact, estimate, strict=True))
    if task.test is None:
        pairs = [(np.delete(s, row), np.delete(e, row)) for row, (s, e) in zip(asked_rows, pairs, strict=True)]
    return Measured(version, card, pairs)


@pytest.fixture(scope="module", params=["test", "train"])
def again(request: pytest.FixtureRequest, task: Task, run: Path, tmp_path_factory: pytest.TempPathFactory) -> Measured:
    of = task if request.param == "test" else replace(task, test=None)
    found = measured(of, run, tmp_path_factory.mktemp("card") / "index")
    assert found.card.source == request.param
    return found


def recall(pairs: list[tuple[np.ndarray, np.ndarray]], k: int, sign: int) -> float:
    """The share of the exact first k that is among the estimated first k, over queries."""
    shares = []
    for of in pairs:
        ids = [str(row) for row in range(len(of[0]))]
        exact, estimated = ({id for id, _ in top_k(torch.from_numpy(sign * scores), k, ids)} for scores in of)
        shares.append(len(exact & estimated) / k)
    return float(np.mean(shares))


def test_recall_is_that_of_the_index(again: Measured) -> None:
    for entry, sign in ((again.card.proponents, 1), (again.card.opponents, -1)):
        assert entry.recall_at_10 == pytest.approx(recall(again.pairs, 10, sign), abs=SWAPS)
        assert entry.recall_at_100 == pytest.approx(recall(again.pairs, 100, sign), abs=SWAPS)
        assert entry.recall_at_10 < 0.98  # a coarse index: 1 would be no measurement
        assert entry.recall_at_10_interval is not None
        assert entry.recall_at_10_interval[0] < entry.recall_at_10 < entry.recall_at_10_interval[1]


def test_correlations_are_those_of_the_index(again: Measured) -> None:
    exact, estimate = (np.concatenate(of) for of in zip(*again.pairs, strict=True))
    assert again.card.pearson == pytest.approx(np.corrcoef(exact, estimate)[0, 1], abs=FLOAT32)
    ranks = [np.corrcoef(s.argsort().argsort(), e.argsort().argsort())[0, 1] for s, e in again.pairs]
    assert again.card.spearman == pytest.approx(np.mean(ranks), abs=FLOAT32)
    assert again.card.pearson_interval is not None and again.card.spearman_interval is not None


def test_errors_and_the_reference_are_quantiles_of_the_pairs(again: Measured) -> None:
    errors = np.concatenate([np.abs(e - s) / np.sqrt(np.square(s).mean()) for s, e in again.pairs])
    assert [entry.share for entry in again.card.error] == [0.5, 0.9, 0.99, 1]
    for entry in again.card.error:
        assert entry.of_rms == pytest.approx(np.quantile(errors, entry.share), rel=FLOAT32, abs=FLOAT32)
    estimates = np.concatenate([e for _, e in again.pairs])
    expected = np.quantile(estimates, again.card.reference.shares)
    assert again.card.reference.scores == pytest.approx(expected, rel=FLOAT32, abs=FLOAT32 * np.abs(estimates).max())


def test_the_card_counts_what_a_query_reads(again: Measured) -> None:
    manifest = again.version.manifest
    assert manifest.vectors.code is not None and manifest.method.fitted is not None
    assert (again.card.queries, again.card.rows, again.card.confidence) == (50, 300, 0.95)
    assert again.card.bytes_per_example == manifest.vectors.code.row_bytes <= BYTES
    assert again.card.basis_bytes == manifest.method.fitted.bytes + manifest.vectors.code.object.bytes


def test_an_exact_index_has_a_card_without_faults(ask: Ask) -> None:
    card = ask.index.version.manifest.card
    assert card is not None
    assert card.proponents.recall_at_100 == card.opponents.recall_at_10 == 1
    assert card.pearson == pytest.approx(1, abs=FLOAT32)
    assert card.error[-1].of_rms < FLOAT32
    assert (card.bytes_per_example, card.basis_bytes) == (4 * 1230, 0)


def test_a_build_without_queries_has_no_card(task: Task, run: Path, tmp_path: Path) -> None:
    spec = BuildSpec(run, projection={"name": "identity"}, card_queries=0)
    assert build(task, spec, tmp_path / "index").manifest.card is None


def test_queries_are_as_many_as_memory_holds(ask: Ask, task: Task) -> None:
    """The tiny network's gradients: 40 and 370 numbers at three checkpoints, formed or as factors of fewer."""
    method = ask.index.method
    room = 1_000_000
    found = affordable_queries(method, task, room)
    one = method.asked(read_rows(task.train, [0]))
    assert one is not None
    assert found * held_bytes(one) <= room < (found + 1) * held_bytes(one)
    assert 3 * 4 * (36 + 10) < held_bytes(one) <= 3 * 4 * (36 * 9 + 410)
    assert affordable_queries(method, task, held_bytes(one) - 1) == 0


def test_query_vectors_are_made_one_by_one(ask: Ask, task: Task) -> None:
    queries = card_queries(task, 5)
    assert queries is not None
    together = ask.index.method.query_vectors(queries.batch)[0]
    np.testing.assert_allclose(query_vectors(ask.index.method, queries), together, rtol=FLOAT32, atol=1e-6)


def test_a_card_that_does_not_fit_is_said(
    task: Task, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.building.card.CARD_SHARE", 2**60)
    manifest = build(task, BuildSpec(run), tmp_path / "index").manifest
    assert manifest.card is None and manifest.caveats == [NO_CARD]
    asked_for_none = build(task, BuildSpec(run, card_queries=0), tmp_path / "other").manifest
    assert asked_for_none.card is None and asked_for_none.caveats == []
