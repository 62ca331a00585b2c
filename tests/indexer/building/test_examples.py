"""The rows of the table of examples: train before test, everything of an example in its row."""

from dataclasses import replace

import numpy as np
import torch

from indexer import Task
from indexer.building.examples import example_rows
from indexer.task import content_hash, read_rows
from tests.chosen import chosen


def test_train_comes_before_test_and_alone_has_positions(task: Task) -> None:
    assert task.test is not None
    small = replace(task, train=chosen(task.train, range(3)), test=chosen(task.test, range(2)))
    self_influence = np.arange(6, dtype=np.float32).reshape(3, 2)
    progress: list[tuple[str, int, int]] = []
    rows = list(example_rows(small, self_influence, lambda *stage: progress.append(stage)))
    found = [(row.example.split, row.example.id, row.example.position) for row in rows]
    assert found == [("train", "0", 0), ("train", "1", 1), ("train", "2", 2), ("test", "0", None), ("test", "1", None)]
    assert [row.example.self_influence for row in rows] == [(0, 1), (2, 3), (4, 5), (), ()]
    assert progress == [("examples", 5, 5)]


def test_a_row_holds_what_the_example_is(task: Task) -> None:
    inputs, targets = read_rows(task.train, [0, 1])
    for number, row in enumerate(
        example_rows(replace(task, train=chosen(task.train, range(2)), test=None), None, print)
    ):
        assert row.example.label == str(targets[number].item())
        assert row.example.content == content_hash(inputs[number], targets[number])
        assert row.example.self_influence == ()
        assert row.preview == task.codec.preview(inputs[number])


def test_progress_is_told_every_hundred_examples(task: Task) -> None:
    told: list[int] = []
    for _ in example_rows(
        replace(task, train=chosen(task.train, range(250)), test=None), None, lambda _, n, all: told.append(n)
    ):
        pass
    assert told == [100, 200, 250]


def test_a_regression_has_its_numbers_as_labels(task: Task) -> None:
    data = torch.utils.data.TensorDataset(torch.zeros(1, 1, 28, 28), torch.tensor([0.1]))
    [row] = example_rows(replace(task, train=data, test=None, labels=None), None, print)
    assert row.example.label == "0.1"
