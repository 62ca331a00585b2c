"""From a task's data sets to the rows of the table of examples: one ordered pass, train before test."""

from collections.abc import Callable, Iterator

import numpy as np

from indexer.index.examples import Example, ExampleRow
from indexer.task import Task, content_hash, read_rows


def example_rows(
    task: Task, self_influence: np.ndarray | None, progress: Callable[[str, int, int], None]
) -> Iterator[ExampleRow]:
    """Yield every example of every split; only training examples have a position and self-influence [n, c]."""
    splits = [(name, examples) for name in ("train", "test") if (examples := task.split(name)) is not None]
    total = sum(len(examples) for _, examples in splits)
    done = 0
    for name, examples in splits:
        for row in range(len(examples)):
            inputs, targets = read_rows(examples, [row])
            indexed = name == "train"
            yield ExampleRow(
                Example(
                    split=name,
                    id=str(row),
                    position=row if indexed else None,
                    label=task.label_of(targets[0]),
                    content=content_hash(inputs[0], targets[0]),
                    self_influence=tuple(self_influence[row].tolist())
                    if indexed and self_influence is not None
                    else (),
                ),
                task.codec.preview(inputs[0]),
            )
            done += 1
            if done % 100 == 0 or done == total:
                progress("examples", done, total)
