"""Relabel: the same id with another label, its gradient made anew, whatever the task's data say."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from indexer import Ask, BuildSpec, KnownExample, Question, Task, build, relabel
from indexer.errors import BuildError, TaskMismatchError, UnknownExampleError, UnknownLabelError
from indexer.index.versions import open_version
from indexer.task import content_hash
from tests.indexer.editing.small import BUILT, INPUTS, LABELS, TARGETS, images, small_run, small_task

NAMES = [LABELS[int(target)] for target in TARGETS]


def another(row: int, by: int = 1) -> str:
    return LABELS[(int(TARGETS[row]) + by) % 3]


def test_the_index_gives_the_new_label_and_keeps_the_id(folder: Path) -> None:
    version = relabel(folder, small_task(), {"7": another(7), "0": another(0)})
    assert (version.manifest.rows, version.manifest.vectors.rows) == (BUILT, BUILT + 2)
    ask = Ask.open(folder, small_task())
    for row in (0, 7):
        example = ask.index.examples.find("train", str(row))
        target = torch.tensor(LABELS.index(another(row)))
        hashes = [content_hash(INPUTS[row], given) for given in (target, TARGETS[row])]
        assert (example.label, example.row, example.content) == (another(row), row, " ".join(hashes))
    labels = {hit.id: hit.label for hit in ask.query(Question(KnownExample("test", "0"), k=BUILT)).proponents}
    assert labels == {str(row): another(row) if row in (0, 7) else NAMES[row] for row in range(BUILT)}


def test_a_label_that_comes_back_is_the_datas_own(folder: Path) -> None:
    ask = Ask.open(folder, small_task())
    before, vector = ask.index.examples.find("train", "4"), ask.index.store.row(4)
    relabel(folder, small_task(), {"4": another(4)})
    relabel(folder, small_task(), {"4": another(4, by=2)})
    relabel(folder, small_task(), {"4": NAMES[4]})
    ask = Ask.open(folder, small_task())
    after = ask.index.examples.find("train", "4")
    assert (after.label, after.content, after.relabelled) == (before.label, before.content, False)
    assert after.position == BUILT + 2
    np.testing.assert_allclose(ask.index.store.row(BUILT + 2), vector, atol=1e-5 * float(np.linalg.norm(vector)))


def test_data_that_are_corrected_too_are_the_same(folder: Path) -> None:
    corrected = TARGETS.clone()
    corrected[0] = LABELS.index(another(0))
    task = replace(small_task(), train=TensorDataset(INPUTS, corrected))
    relabel(folder, small_task(), {"0": another(0)})
    question = Question(KnownExample("train", "0"), k=3)
    answers = [Ask.open(folder, each).query(question).proponents for each in (small_task(), task)]
    assert answers[0] == answers[1]


def test_data_may_be_corrected_before_the_index(folder: Path) -> None:
    """Row 5 is none of those that every opening compares."""
    corrected = TARGETS.clone()
    corrected[5] = LABELS.index(another(5))
    task = replace(small_task(), train=TensorDataset(INPUTS, corrected))
    relabel(folder, task, {"5": another(5)})
    example = Ask.open(folder, task).index.examples.find("train", "5")
    assert (example.label, example.relabelled) == (another(5), False)


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (
            {"1": NAMES[1], "2": another(2)},
            BuildError,
            r"1 of 2 training examples already have the label .*: '1'; noth",
        ),
        (
            {"1": "triangle"},
            UnknownLabelError,
            r"relabel '1' to 'triangle': unknown label; expected one of 'round', 's",
        ),
        ({"12": "star"}, UnknownExampleError, r"1 of 1 ids are of no training example of the index, .*: '12'; nothing"),
        ({}, BuildError, r"relabel: expected ids of training examples"),
    ],
)
def test_labels_that_cannot_be_given_are_refused(
    folder: Path, labels: dict[str, str], error: type[Exception], message: str
) -> None:
    before = open_version(folder)
    with pytest.raises(error, match=message):
        relabel(folder, small_task(), labels)
    assert open_version(folder) == before


def test_an_example_that_has_changed_is_refused(folder: Path) -> None:
    inputs = INPUTS.clone()
    inputs[5] += 1
    with pytest.raises(TaskMismatchError, match="example '5' of split 'train' is not what it was"):
        relabel(folder, replace(small_task(), train=TensorDataset(inputs, TARGETS)), {"5": another(5)})


def squared(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs[:, 0] - targets.flatten()).square()


def regression(targets: Tensor) -> Task:
    return replace(small_task(), loss=squared, labels=None, train=TensorDataset(INPUTS, targets), test=None)


@pytest.fixture
def built(tmp_path: Path) -> Callable[[Task], Path]:
    """Return a function that builds an index of another task of the small model."""
    (tmp_path / "run").mkdir()
    spec = BuildSpec(
        small_run(tmp_path / "run"), projection={"name": "identity"}, batch_size=8, threads=1, card_queries=0
    )
    return lambda task: build(task, spec, tmp_path / "other").folder


def test_a_regression_gets_numbers(built: Callable[[Task], Path]) -> None:
    targets = torch.arange(30.0)[:, None] / 8
    task = regression(targets)
    folder = built(task)
    relabel(folder, task, {"9": "0.1", "0": "-3"})
    ask = Ask.open(folder, task)
    assert [ask.index.examples.find("train", id).label for id in ("0", "9", "8")] == ["-3.0", "0.1", "1.0"]
    changed = targets.clone()
    changed[0], changed[9] = -3, 0.1
    parts = ask.index.method.train_rows((INPUTS[[0, 9]], changed[[0, 9]])).vectors.numpy()
    np.testing.assert_allclose(ask.index.store.rows([30, 31]), parts, rtol=1e-5, atol=1e-5)
    with pytest.raises(UnknownLabelError, match=r"relabel '9' to 'nan': expected a finite number of dtype torch\.fl"):
        relabel(folder, task, {"9": "nan"})
    with pytest.raises(UnknownLabelError, match="relabel '9' to 'nine': unknown label; this is a regression"):
        relabel(folder, task, {"9": "nine"})
    with pytest.raises(BuildError, match="already have the label"):
        relabel(folder, task, {"9": "0.1"})


def test_whole_targets_stay_whole(built: Callable[[Task], Path]) -> None:
    task = regression(torch.arange(30))
    folder = built(task)
    with pytest.raises(UnknownLabelError, match=r"relabel '9' to '2\.5': expected a finite number of dtype torch\.int"):
        relabel(folder, task, {"9": "2.5"})
    relabel(folder, task, {"9": "2.0"})
    assert Ask.open(folder, task).index.examples.find("train", "9").label == "2"


def sequences(outputs: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.mse_loss(outputs, targets, reduction="none").mean(1)


def test_an_example_of_several_targets_is_refused(built: Callable[[Task], Path]) -> None:
    task = replace(regression(images(30, seed=2)[0].flatten(1)[:, :3]), loss=sequences)
    folder = built(task)
    with pytest.raises(UnknownLabelError, match="relabel '9' to '1': an example of several targets has no label"):
        relabel(folder, task, {"9": "1"})
