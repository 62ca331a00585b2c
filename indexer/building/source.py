"""The source of a build: a task's model at the checkpoints of a folder, probed, and everything cheap checked first."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from indexer.building.examples import check_labels
from indexer.checkpoints.files import Checkpoint, read_state
from indexer.checkpoints.states import model_states
from indexer.errors import BuildError, TaskError
from indexer.gradients.at_checkpoints import ModelAtCheckpoints
from indexer.gradients.probe import PROBE_ROWS, check_runs, probe
from indexer.task import Task, content_hash, read_rows


@dataclass(frozen=True, slots=True)
class Source:
    """A task's model, warm at all checkpoints, and the checkpoints' own tensors."""

    model: ModelAtCheckpoints
    checkpoints: tuple[Checkpoint, ...]
    files: tuple[dict[str, Tensor], ...]

    @property
    def etas(self) -> tuple[float, ...]:
        """The learning rate at each checkpoint."""
        return tuple(checkpoint.learning_rate for checkpoint in self.checkpoints)


def open_source(task: Task, checkpoints: tuple[Checkpoint, ...], dtype: torch.dtype = torch.float32) -> Source:
    """Read the checkpoints, probe the task's model at the last one, and keep it warm at all of them.

    Raises:
        BuildError: there are too few training examples.
        TaskError: data, labels, codec and model do not fit together.
    """
    if len(task.train) < PROBE_ROWS:
        raise BuildError(f"expected at least {PROBE_ROWS} training examples, found {len(task.train)}")
    files = tuple(read_state(checkpoint.path) for checkpoint in checkpoints)
    where = [f"checkpoint {i} of {len(files)} ({c.path.name!r})" for i, c in enumerate(checkpoints, 1)]
    module = copy.deepcopy(task.model())  # the task may hand out one model again and again
    states = model_states(module, zip(where, files, strict=True))
    batch = read_rows(task.train, range(PROBE_ROWS))
    _check_data(task, batch)
    layout = probe(module, task.loss, batch)
    model = ModelAtCheckpoints(module, states, task.loss, layout, dtype=dtype)
    check_runs(model, batch)
    _check_outputs(task, model.outputs(0, batch[0]))
    return Source(model, checkpoints, files)


def _check_data(task: Task, batch: tuple[Tensor, Tensor]) -> None:
    """Check what a look at a few training examples, and at the targets of the test split, can show.

    Raises:
        TaskError: with what to do.
    """
    if content_hash(*batch) != content_hash(*read_rows(task.train, range(PROBE_ROWS))):
        raise TaskError("task.train gives another input when the same row is read again; leave random augmentation out")
    check_labels(task, "train", range(PROBE_ROWS), batch[1])
    for row in range(0 if task.test is None else len(task.test)):
        check_labels(task, "test", [row], read_rows(task.split("test") or (), [row])[1])
    try:
        task.codec.preview(batch[0][0])
    except (RuntimeError, ValueError, TypeError) as exc:
        shape = tuple(batch[0].shape[1:])
        raise TaskError(
            f"the codec {task.codec.describe()} cannot draw a training input of shape {shape}: {exc}"
        ) from exc


def _check_outputs(task: Task, outputs: Tensor) -> None:
    """Labels name the outputs of a classifier, one an output.

    Raises:
        TaskError: they do not.
    """
    if task.labels is None:
        return
    if outputs.ndim != 2:
        raise TaskError(
            f"the task has labels, so outputs of shape [b, {len(task.labels)}] were expected; "
            f"found {tuple(outputs.shape)}"
        )
    if outputs.shape[1] != len(task.labels):
        counts = f"{outputs.shape[1]} outputs and the task {len(task.labels)} labels"
        raise TaskError(f"the model has {counts}; expected one label an output")
