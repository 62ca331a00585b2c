"""Exact scores by streamed factor products against a loop of ``backward()``, both in float64."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from indexer import BuildSpec, Task
from indexer.checkpoints.folder import open_run
from indexer.checkpoints.weights import read_weights
from indexer.errors import TaskError
from indexer.evaluate.exact import ExactScores, exact_scores
from indexer.task import read_rows
from tests import reference
from tests.tiny import cross_entropy, head, tiny_model

DOUBLE = 1e-9  # relative to the norm: float64 sums of a few hundred terms round at 1e-14; states are float32 in both
BATCHES = 1e-12  # the same products in another order
QUERIES = 4


@pytest.fixture(scope="module")
def found(task: Task, run: Path) -> ExactScores:
    return exact_scores(task, BuildSpec(run), queries=QUERIES)


def test_scores_and_self_influence_are_those_of_the_loop(found: ExactScores, task: Task, run: Path) -> None:
    assert task.test is not None
    checkpoints = open_run(run).checkpoints
    states, etas = [read_weights(c.path) for c in checkpoints], [c.learning_rates[0] for c in checkpoints]
    model = (tiny_model(), cross_entropy)
    train = read_rows(task.train, range(len(task.train)))
    queries = read_rows(task.test, range(QUERIES))
    scores = reference.exact_scores(model, states, etas, queries, train)
    norms = reference.exact_self_influence(model, states, etas, train)
    assert reference.relative_error(torch.from_numpy(found.scores), scores) < DOUBLE
    assert reference.relative_error(torch.from_numpy(found.self_influence), norms) < DOUBLE
    assert found.scores.dtype == found.self_influence.dtype == np.float64


@pytest.mark.parametrize("batch_size", [7, 1000])
def test_batches_make_no_difference(found: ExactScores, task: Task, run: Path, batch_size: int) -> None:
    other = exact_scores(task, BuildSpec(run), queries=QUERIES, batch_size=batch_size)
    for mine, theirs in ((found.scores, other.scores), (found.self_influence, other.self_influence)):
        assert reference.relative_error(torch.from_numpy(theirs), torch.from_numpy(mine)) < BATCHES


def test_progress_counts_to_the_last_training_example(task: Task, run: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    exact_scores(
        task,
        BuildSpec(run),
        queries=1,
        batch_size=128,
        progress=lambda stage, done, total: seen.append((stage, done, total)),
    )
    assert seen == [("exact scores", done, 300) for done in (128, 256, 300)]


def test_queries_that_are_not_there_are_refused(task: Task, run: Path) -> None:
    for test, queries, count in ((None, 1, 0), (head(task.train, 2), 3, 2)):  # type: ignore[arg-type]
        text = f"expected at least {queries} test examples to ask about, found {count}; give the task a test split"
        with pytest.raises(TaskError, match=text):
            exact_scores(replace(task, test=test), BuildSpec(run), queries=queries)


def test_checkpoints_are_taken_and_weighed_as_a_build_does(task: Task, run: Path, found: ExactScores) -> None:
    last = exact_scores(task, BuildSpec(run, steps=(228,)), queries=QUERIES)
    assert np.allclose(last.self_influence[:, 0], found.self_influence[:, 2], rtol=1e-12)
