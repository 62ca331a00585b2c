"""The rows of the table of examples: train before test, everything of an example in its row."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from indexer import Task
from indexer.building.examples import check_labels, example_rows
from indexer.errors import TaskError
from indexer.task import content_hash, read_rows
from tests.chosen import chosen


def content(task: Task) -> list[str]:
    """The hashes of the training examples."""
    inputs, targets = read_rows(task.train, range(len(task.train)))
    return [content_hash(x, y) for x, y in zip(inputs, targets, strict=True)]


def test_train_comes_before_test_and_alone_has_positions(task: Task) -> None:
    assert task.test is not None
    small = replace(task, train=chosen(task.train, range(3)), test=chosen(task.test, range(2)))
    self_influence = np.arange(6, dtype=np.float32).reshape(3, 2)
    progress: list[tuple[str, int, int]] = []
    rows = list(example_rows(small, self_influence, content(small), lambda *stage: progress.append(stage)))
    found = [(row.example.split, row.example.id, row.example.position) for row in rows]
    assert found == [("train", "0", 0), ("train", "1", 1), ("train", "2", 2), ("test", "0", None), ("test", "1", None)]
    assert [row.example.self_influence for row in rows] == [(0, 1), (2, 3), (4, 5), (), ()]
    assert progress == [("examples", 5, 5)]


def test_a_row_holds_what_the_example_is(task: Task) -> None:
    inputs, targets = read_rows(task.train, [0, 1])
    two = replace(task, train=chosen(task.train, range(2)), test=None)
    for number, row in enumerate(example_rows(two, None, content(two), print)):
        assert row.example.row == number
        assert row.example.label == str(targets[number].item())
        assert row.example.content == content_hash(inputs[number], targets[number])
        assert row.example.self_influence == ()
        assert row.preview == task.codec.preview(inputs[number])


def test_progress_is_told_every_hundred_examples(task: Task) -> None:
    told: list[int] = []
    many = replace(task, train=chosen(task.train, range(250)), test=None)
    for _ in example_rows(many, None, content(many), lambda _, n, all: told.append(n)):
        pass
    assert told == [100, 200, 250]


def test_a_regression_has_its_numbers_as_labels(task: Task) -> None:
    data = torch.utils.data.TensorDataset(torch.zeros(1, 1, 28, 28), torch.tensor([0.1]))
    regression = replace(task, train=data, test=None, labels=None)
    [row] = example_rows(regression, None, content(regression), print)
    assert row.example.label == "0.1"


def test_an_example_that_has_changed_since_its_vector_was_made_is_refused(task: Task) -> None:
    three = replace(task, train=chosen(task.train, range(3)), test=None)
    stale = [*content(three)[:2], "0" * 32]
    with pytest.raises(TaskError, match="another example when row 2 is read again; leave random augmentation out"):
        list(example_rows(three, None, stale, print))


@pytest.mark.parametrize(
    ("target", "text"),
    [
        (torch.tensor(10), "row 7 of split 'test': target 10 has no name: the task has 10 labels"),
        (torch.tensor([1, 2]), r"row 7 of split 'test': expected one number as target, found shape \(2,\)"),
    ],
)
def test_a_target_without_a_name_is_refused_with_its_row(task: Task, target: torch.Tensor, text: str) -> None:
    with pytest.raises(TaskError, match=text):
        check_labels(task, "test", [7], target[None])
