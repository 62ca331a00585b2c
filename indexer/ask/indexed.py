"""Examples as an index has them: inputs from the task's data by row, targets of the labels that the index gives.

The label of a relabelled example is the index's, whether the task's data says so already or not. Everything else of an
example that is asked about must be as it was when it was indexed.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from indexer.errors import TaskMismatchError
from indexer.index.examples import Example
from indexer.task import Task, content_hash, read_rows


def indexed_example(task: Task, stored: Example) -> tuple[Tensor, Tensor]:
    """Return the input and target of one example.

    Raises:
        TaskMismatchError: the task has no such example any more, or another one in its place.
    """
    value, own = _read(task, stored)
    if content_hash(value, own) not in stored.content.split():
        raise TaskMismatchError(
            f"example {stored.id!r} of split {stored.split!r} is not what it was when the index was built; "
            "serve it with the data that it was built with"
        )
    return value, _target(task, stored, own) if stored.relabelled else own


def indexed_batch(task: Task, stored: Sequence[Example]) -> tuple[Tensor, Tensor]:
    """Return the inputs [b, ...] and targets [b, ...] of some examples, their content not compared.

    For what is compared by its numbers: another machine may decode a picture to others in their last bits. A label that
    was corrected in the data alone is no other task: targets are those that were indexed.
    """
    found = [_read(task, example) for example in stored]
    targets = [_target(task, example, own) for example, (_, own) in zip(stored, found, strict=True)]
    return torch.stack([value for value, _ in found]), torch.stack(targets)


def other_labels(task: Task, stored: Sequence[Example]) -> int:
    """Return how many of some examples have another label in the task's data, and were not relabelled in the index."""
    return sum(task.label_of(_read(task, example)[1]) != example.label for example in stored if not example.relabelled)


def _read(task: Task, stored: Example) -> tuple[Tensor, Tensor]:
    examples = task.split(stored.split)
    if examples is None or stored.row >= len(examples):
        raise TaskMismatchError(f"the task has no example {stored.id!r} in split {stored.split!r} any more")
    inputs, targets = read_rows(examples, [stored.row])
    return inputs[0], targets[0]


def _target(task: Task, stored: Example, own: Tensor) -> Tensor:
    return own if own.numel() != 1 else task.target_named(stored.label, own)
