"""Relabel: the row with the old label ends, and one with the new label is added under the same id.

The task's data may say either: what the index answers with is its own label (`indexer.ask.indexed`).
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from torch import Tensor

from indexer.building.plan import running
from indexer.building.progress import Progress, silent
from indexer.editing.adding import NewRows, add_rows, open_to_add
from indexer.editing.edit import deleted_rows, editing
from indexer.editing.named import listed, named, once, without
from indexer.errors import BuildError, TaskMismatchError, UnknownLabelError
from indexer.index.examples import Example
from indexer.index.versions import IndexVersion
from indexer.task import Task, content_hash, read_rows


def relabel(folder: str | Path, task: Task, labels: Mapping[str, str], progress: Progress = silent) -> IndexVersion:
    """Make a version in which some training examples have other labels, and return it.

    labels: the new label by id; of a regression the new target, as a number.

    Raises:
        UnknownIndexError: the folder holds no finished index.
        CorruptIndexError: a file of the index has changed.
        TaskMismatchError: the task is not the one that the index was built with, or an example is another one now.
        UnknownExampleError: an id is of no training example, or of a deleted one.
        UnknownLabelError: the task has no such label, or several targets an example, as a sequence model has.
        BuildError: no label was given, an example has its label already, the method is fitted on all rows, or another
            edit is at work.
    """
    ids = once(labels, "relabel")
    with editing(folder, "relabel") as edit, running(edit.before.manifest.plan.threads):
        index = open_to_add(edit, task)
        with closing(index.examples):
            found = named(index.examples, ids)
            _check(task, found, labels)
            new = NewRows(task, [example.row for example in found], {e.row: labels[e.id] for e in found})
            changes = add_rows(edit, index, new, progress)
        gone = [example.position for example in found]
        tombstones = without(edit.before.objects, deleted_rows(edit.before), gone)
        changes["vectors"] = changes["vectors"].model_copy(update={"deleted": tombstones})
        return edit.commit(**changes)


def _check(task: Task, found: Sequence[Example], labels: Mapping[str, str]) -> None:
    """Make sure that each example is the one that was indexed, and gets a label that it does not have.

    Raises:
        BuildError: some have it already; the first are named.
    """
    same = []
    for example in found:
        inputs, targets = read_rows(task.train, [example.row])
        target = _target(task, targets[0], example.id, labels[example.id])
        _check_unchanged(task, example, inputs[0], targets[0])
        if task.label_of(target) == example.label:
            same.append(example.id)
    if same:
        raise BuildError(
            f"relabel: {len(same):,} of {len(found):,} training examples already have the label that they shall get: "
            f"{listed(same)}; nothing was changed"
        )


def _check_unchanged(task: Task, example: Example, value: Tensor, own: Tensor) -> None:
    """Compare an example of the data with the indexed one; its target alone may have been corrected there before.

    Raises:
        TaskMismatchError: it is another one.
    """
    known = example.content.split()
    if content_hash(value, own) in known:
        return
    if content_hash(value, task.target_named(example.label, own)) not in known:
        raise TaskMismatchError(
            f"example {example.id!r} of split 'train' is not what it was when it was indexed; "
            "relabel with the data that the index was built with"
        )


def _target(task: Task, like: Tensor, id: str, label: str) -> Tensor:
    try:
        target = task.target_named(label, like)
    except UnknownLabelError as exc:
        raise UnknownLabelError(f"relabel {id!r} to {label!r}: {exc}") from exc
    if task.labels is None and not (
        math.isfinite(target.item()) and (like.is_floating_point() or float(label) == target.item())
    ):
        raise UnknownLabelError(f"relabel {id!r} to {label!r}: expected a finite number of dtype {like.dtype}")
    return target
