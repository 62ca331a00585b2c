"""From a task's data sets to the rows of the table of examples: one ordered pass, train before test."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from torch import Tensor

from indexer.building.side import Hashes
from indexer.errors import TaskError
from indexer.index.examples import Example, ExampleRow
from indexer.task import Task, content_hash, read_rows


def check_labels(task: Task, split: str, rows: Sequence[int], targets: Tensor) -> None:
    """Make sure that every target has a name.

    Raises:
        TaskError: one has none, with its row.
    """
    for row, target in zip(rows, targets, strict=True):
        if target.numel() != 1 and task.labels is not None:
            raise TaskError(
                f"row {row} of split {split!r}: expected one number as target, found shape {tuple(target.shape)}; "
                "leave labels out of the task of a sequence model"
            )
        try:
            task.label_of(target)
        except TaskError as exc:
            raise TaskError(f"row {row} of split {split!r}: {exc}") from exc


def example_rows(
    task: Task,
    self_influence: np.ndarray | None,
    content: Sequence[str] | Hashes,
    progress: Callable[[str, int, int], None],
) -> Iterator[ExampleRow]:
    """Yield every example of every split; only training examples have a position and self-influence [n, c].

    Raises:
        TaskError: a training example is not what it was when its vector was made; content: the hashes of that moment.
    """
    splits = [(name, examples) for name in ("train", "test") if (examples := task.split(name)) is not None]
    total = sum(len(examples) for _, examples in splits)
    done = 0
    for name, examples in splits:
        for row in range(len(examples)):
            inputs, targets = read_rows(examples, [row])
            indexed = name == "train"
            found = content_hash(inputs[0], targets[0])
            if indexed and found != content[row]:
                raise TaskError(
                    f"task.train gives another example when row {row} is read again; leave random augmentation out"
                )
            yield ExampleRow(
                Example(
                    split=name,
                    id=str(row),
                    row=row,
                    position=row if indexed else None,
                    label=task.label_of(targets[0]),
                    content=found,
                    self_influence=tuple(self_influence[row].tolist())
                    if indexed and self_influence is not None
                    else (),
                ),
                task.codec.preview(inputs[0]),
            )
            done += 1
            if done % 100 == 0 or done == total:
                progress("examples", done, total)
