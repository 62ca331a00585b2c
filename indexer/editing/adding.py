"""Rows that are added to an index: vectors by its own method, bases, code and plan, behind those that are there."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from indexer.ask.opening import OpenIndex, open_index
from indexer.building.progress import Progress
from indexer.building.vectors import Pass, VectorRows, write_vectors
from indexer.editing.edit import Edit
from indexer.editing.segments import with_segment
from indexer.errors import BuildError, TaskError
from indexer.gradients.outputs import probe_outputs
from indexer.index.examples import Example, ExampleRow
from indexer.index.manifest import ProbeEntry
from indexer.methods.registry import method_kind
from indexer.task import Task, content_hash, read_rows


@dataclass(frozen=True, slots=True)
class NewRows:
    """Rows of task.train by their number, as they shall be indexed; labels: of those that do not keep the data's own.

    A data set itself, of (input, target).
    """

    task: Task
    rows: Sequence[int]
    labels: Mapping[int, str]

    def __len__(self) -> int:
        """Rows."""
        return len(self.rows)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        """Return the input and the target that is indexed."""
        value, own = self.read(number)
        label = self.labels.get(self.rows[number])
        return value, own if label is None else self.task.target_named(label, own)

    def read(self, number: int) -> tuple[Tensor, Tensor]:
        """Return the input and the target that the data has."""
        inputs, targets = read_rows(self.task.train, [self.rows[number]])
        return inputs[0], targets[0]


def open_to_add(edit: Edit, task: Task) -> OpenIndex:
    """Open the version that rows are to be added to, and verify it and the task.

    Raises:
        BuildError: its method is fitted on all training rows, so that others would be those of another fit.
        CorruptIndexError: a file is not what the manifest says.
        TaskMismatchError: the task is not the one that the index was built with.
    """
    version = edit.before
    name = version.manifest.method.name
    if method_kind(name).fitted_on_all_rows:
        raise BuildError(
            f"{edit.name}: method {name!r} is fitted on all training examples, and the rows of index "
            f"{version.name!r} would not be those of the new set; build a new index"
        )
    return open_index(version.folder, task, version.version)


def add_rows(edit: Edit, index: OpenIndex, new: NewRows, progress: Progress) -> dict[str, Any]:
    """Write the vectors and examples of new rows, and return the fields of the manifest that change.

    Raises:
        TaskError: a row is not an example, or is another one when it is read again.
        BuildError: its vector is not finite.
    """
    manifest, objects = edit.before.manifest, edit.before.objects
    ready = Pass(index.method, index.store.code, manifest.plan)
    with _naming_rows(new):
        made = write_vectors(replace(new.task, train=new), ready, None, objects, progress)
    rows = _example_rows(new, made, manifest.vectors.rows, progress)
    vectors = {"rows": manifest.vectors.rows + len(new), "shards": [*manifest.vectors.shards, *made.shards]}
    return {
        "vectors": manifest.vectors.model_copy(update=vectors),
        "examples": with_segment(objects, manifest.examples, rows, len(new)),
        "probe": _probe(edit, index, new),
    }


def _probe(edit: Edit, index: OpenIndex, new: NewRows) -> ProbeEntry:
    """Return the probe outputs, made again for the examples that have come back or have another label."""
    entry, objects = edit.before.manifest.probe, edit.before.objects
    numbers = {str(row): number for number, row in enumerate(new.rows)}
    again = [column for column, id in enumerate(entry.ids) if id in numbers]
    if not again:
        return entry
    tensors = safetensors.torch.load(objects.read(entry.object, "probe outputs"))
    examples = [new[numbers[entry.ids[column]]] for column in again]
    values, targets = zip(*examples, strict=True)
    for name, found in probe_outputs(index.model, (torch.stack(values), torch.stack(targets))).items():
        tensors[name][:, again] = found
    return entry.model_copy(update={"object": objects.add(safetensors.torch.save(tensors))})


@contextmanager
def _naming_rows(new: NewRows) -> Iterator[None]:
    """Say from where rows are counted that errors of the pass name.

    Raises:
        TaskError: the one that the block raised, with more words.
        BuildError: the same.
    """
    try:
        yield
    except (BuildError, TaskError) as exc:
        if type(exc) not in (BuildError, TaskError):
            raise
        raise type(exc)(f"{exc} (the first row that is added counts as 0: row {new.rows[0]} of task.train)") from exc


def _example_rows(new: NewRows, made: VectorRows, start: int, progress: Progress) -> Iterator[ExampleRow]:
    """Yield the new examples, positions from `start` on.

    content: of what is indexed; for a label that is not the data's own, the hash of what the data has comes second.

    Raises:
        TaskError: a row is another one when it is read again.
    """
    for number, row in enumerate(new.rows):
        (value, target), (_, own) = new[number], new.read(number)
        indexed, in_data = content_hash(value, target), content_hash(value, own)
        if indexed != made.content[number]:
            raise TaskError(
                f"task.train gives another example when row {row} is read again; leave random augmentation out"
            )
        influence = () if made.self_influence is None else made.self_influence[number].tolist()
        example = Example(
            split="train",
            id=str(row),
            row=row,
            position=start + number,
            label=new.task.label_of(target),
            content=indexed if indexed == in_data else f"{indexed} {in_data}",
            self_influence=tuple(influence),
        )
        yield ExampleRow(example, new.task.codec.preview(value))
        progress("examples", number + 1, len(new))
