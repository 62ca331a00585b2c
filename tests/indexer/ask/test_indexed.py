"""What an index holds of an example is what is asked about: its own label, and no other input."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from indexer import Task
from indexer.ask.indexed import indexed_batch, indexed_example, other_labels
from indexer.errors import TaskMismatchError
from indexer.index.examples import Example
from indexer.task import content_hash, read_rows
from tests.chosen import chosen


def stored(task: Task, row: int, relabelled: str | None = None) -> Example:
    """What an index keeps of a training row, as it is or with another label."""
    inputs, targets = read_rows(task.train, [row])
    content = content_hash(inputs[0], targets[0])
    label = task.label_of(targets[0])
    if relabelled is not None:
        label, content = relabelled, f"{content_hash(inputs[0], task.target_of(relabelled))} {content}"
    return Example("train", str(row), row, row, label, content)


def with_target(task: Task, row: int, target: int) -> Task:
    """The task whose data gives another target for a row."""
    inputs, targets = read_rows(task.train, range(20))
    targets[row] = target
    return replace(task, train=TensorDataset(inputs, targets))


def same(found: tuple[Tensor, Tensor], task: Task, row: int) -> bool:
    inputs, targets = read_rows(task.train, [row])
    return found[0].equal(inputs[0]) and found[1].equal(targets[0])


def test_an_example_is_that_of_the_data(task: Task) -> None:
    assert same(indexed_example(task, stored(task, 7)), task, 7)
    inputs, targets = indexed_batch(task, [stored(task, 7), stored(task, 3)])
    assert same((inputs[0], targets[0]), task, 7) and same((inputs[1], targets[1]), task, 3)


def test_a_label_of_the_index_wins_before_and_after_the_data_say_so_too(task: Task) -> None:
    old = int(read_rows(task.train, [7])[1][0])
    new = (old + 1) % 10
    example = stored(task, 7, relabelled=str(new))
    for now in (old, new):
        value, target = indexed_example(with_target(task, 7, now), example)
        assert value.equal(read_rows(task.train, [7])[0][0])
        assert target.equal(torch.tensor(new)) and target.dtype == torch.int64
        assert indexed_batch(with_target(task, 7, now), [example])[1].tolist() == [new]


def test_another_example_in_its_place_is_refused(task: Task) -> None:
    moved = replace(stored(task, 7), row=8)
    with pytest.raises(TaskMismatchError, match="example '7' of split 'train' is not what it was"):
        indexed_example(task, moved)
    third = (int(read_rows(task.train, [7])[1][0]) + 2) % 10
    changed = with_target(task, 7, third)
    with pytest.raises(TaskMismatchError, match="is not what it was when the index was built"):
        indexed_example(changed, stored(task, 7))
    with pytest.raises(TaskMismatchError, match="is not what it was when the index was built"):
        indexed_example(changed, stored(task, 7, relabelled=str((third - 1) % 10)))


def test_a_row_that_is_gone_is_refused(task: Task) -> None:
    shorter = replace(task, train=chosen(task.train, range(5)))
    for asked in (indexed_example, lambda task, example: indexed_batch(task, [example])):
        with pytest.raises(TaskMismatchError, match="no example '7' in split 'train' any more"):
            asked(shorter, stored(task, 7))
    with pytest.raises(TaskMismatchError, match="no example '0' in split 'test' any more"):
        indexed_example(replace(task, test=None), Example("test", "0", 0, None, "1", ""))


def test_labels_that_differ_are_counted_but_for_the_index_s_own(task: Task) -> None:
    examples = [stored(task, 3), stored(task, 7), stored(task, 8, relabelled="9")]
    assert other_labels(task, examples) == 0
    target = (int(read_rows(task.train, [7])[1][0]) + 1) % 10
    changed = with_target(task, 7, target)
    assert other_labels(changed, examples) == 1
    assert indexed_batch(changed, examples)[1].equal(indexed_batch(task, examples)[1])
