"""The build, from task and checkpoints to a committed index.

    probe -> plan -> vectors, batch by batch -> examples -> probe outputs -> manifest (the commit point)

Objects are content-addressed and nothing names them before the manifest, so a build that dies leaves no index, and
nothing half written under a name that anybody reads.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
import safetensors.torch
import torch
from torch import Tensor

from indexer.building.examples import example_rows
from indexer.building.plan import batches, make_plan, refuse_too_large, running
from indexer.building.spec import BuildSpec
from indexer.checkpoints.files import Checkpoint, list_checkpoints, read_state
from indexer.checkpoints.states import model_states
from indexer.errors import BuildError, TaskError
from indexer.gradients.at_checkpoints import ModelAtCheckpoints
from indexer.gradients.outputs import fixed_rows, probe_outputs
from indexer.gradients.probe import PROBE_ROWS, probe
from indexer.index import manifest as m
from indexer.index.examples import write_examples
from indexer.index.objects import ObjectRef, Objects
from indexer.index.store import VectorWriter
from indexer.index.versions import IndexVersion, commit, refuse_existing
from indexer.methods.method import Method
from indexer.methods.registry import method_kind
from indexer.task import Task, content_hash, read_rows

Progress = Callable[[str, int, int], None]  # (stage, done, total), called after every batch


def silent(stage: str, done: int, total: int) -> None:
    """Show no progress."""


def build(task: Task, spec: BuildSpec, out: str | Path, progress: Progress = silent) -> IndexVersion:
    """Build an index into a folder that holds none yet, and return it.

    Raises:
        BuildError: the folder holds an index, or the build would not fit; nothing was written.
        CheckpointError: a checkpoint is missing, has no learning rate or does not fit the model.
        TaskError: the task or its model does not keep its contract (see `indexer.gradients.probe`).
    """
    folder = Path(out)
    refuse_existing(folder)
    started = time.time()
    plan = make_plan(spec)
    with running(plan):
        source = open_source(task, list_checkpoints(spec.checkpoints))
        parameters = {"projection": dict(spec.projection)}
        kind = method_kind(spec.method)
        train = (read_rows(task.train, rows) for rows in batches(len(task.train), plan.batch_size))
        fitted = kind.fit(source.model, parameters, train)
        method = kind.open(source.model, source.etas, parameters, fitted)
        width = method.parts[-1].stop
        refuse_too_large(len(task.train), width, folder)
        objects = Objects(folder / "objects")
        shards, self_influence = _write_vectors(task, method, plan, objects, progress)
        manifest = m.Manifest(
            format=m.FORMAT,
            method=m.MethodEntry(
                name=spec.method,
                parameters=parameters,
                fitted=objects.add(safetensors.torch.save(fitted)) if fitted else None,
                random_check=dict(method.random_check),
            ),
            task=m.TaskEntry(labels=None if task.labels is None else list(task.labels), input=task.codec.describe()),
            checkpoints=_write_checkpoints(source, objects),
            blocks=[
                m.BlockEntry(name=b.name, parameters=list(b.parameters), shape=b.shape, path=b.path, note=b.note)
                for b in source.model.layout.blocks
            ],
            sequential=source.model.layout.sequential,
            vectors=m.VectorsEntry(
                dtype="<f4",
                rows=len(task.train),
                width=width,
                parts=[m.PartEntry(name=p.name, start=p.start, stop=p.stop) for p in method.parts],
                shards=shards,
            ),
            search=m.SearchEntry(kind="flat"),
            examples=_write_examples(task, self_influence, objects, progress),
            probe=_write_probe(task, source.model, objects),
            plan=plan,
        )
    version = commit(folder, manifest)
    _log(folder, version, started)
    return version


@dataclass(frozen=True, slots=True)
class Source:
    """A task's model at the checkpoints of a folder, probed and ready."""

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
        TaskError: an example is another one when it is read again, or the labels do not fit the model's outputs.
    """
    if len(task.train) < PROBE_ROWS:
        raise BuildError(f"expected at least {PROBE_ROWS} training examples, found {len(task.train)}")
    files = tuple(read_state(checkpoint.path) for checkpoint in checkpoints)
    where = [f"checkpoint {i} of {len(files)} ({c.path.name!r})" for i, c in enumerate(checkpoints, 1)]
    module = task.model()
    states = model_states(module, zip(where, files, strict=True))
    batch = read_rows(task.train, range(PROBE_ROWS))
    if content_hash(*batch) != content_hash(*read_rows(task.train, range(PROBE_ROWS))):
        raise TaskError("task.train gives another input when the same row is read again; leave random augmentation out")
    layout = probe(module, task.loss, batch)
    model = ModelAtCheckpoints(module, states, task.loss, layout, dtype=dtype)
    width = model.outputs(0, batch[0]).shape[-1]
    if task.labels is not None and width != len(task.labels):
        raise TaskError(
            f"the model has {width} outputs and the task {len(task.labels)} labels; expected one label an output"
        )
    return Source(model, checkpoints, files)


def _write_vectors(
    task: Task, method: Method, plan: m.Plan, objects: Objects, progress: Progress
) -> tuple[list[m.ShardEntry], np.ndarray | None]:
    """Stream the training set through the method; return the shards and self-influence [n, c], if the method has it."""
    writer = VectorWriter(objects, method.parts[-1].stop)
    self_influence = []
    total = len(task.train)
    for rows in batches(total, plan.batch_size):
        found = method.train_rows(read_rows(task.train, rows))
        writer.add(found.vectors.numpy())
        if found.self_influence is not None:
            self_influence.append(found.self_influence.numpy())
        progress("vectors", rows.stop, total)
    return writer.finish(), np.concatenate(self_influence) if self_influence else None


def _write_checkpoints(source: Source, objects: Objects) -> list[m.CheckpointEntry]:
    return [
        m.CheckpointEntry(
            object=objects.add(safetensors.torch.save({name: tensor.contiguous() for name, tensor in state.items()})),
            file=checkpoint.path.name,
            learning_rate=checkpoint.learning_rate,
            eta=checkpoint.learning_rate,
            step=checkpoint.step,
            epoch=checkpoint.epoch,
            train_loss=checkpoint.train_loss,
        )
        for checkpoint, state in zip(source.checkpoints, source.files, strict=True)
    ]


def _write_examples(
    task: Task, self_influence: np.ndarray | None, objects: Objects, progress: Progress
) -> m.ExamplesEntry:
    splits = {name: len(examples) for name in ("train", "test") if (examples := task.split(name)) is not None}
    with tempfile.TemporaryDirectory(dir=objects.folder, prefix=".new-") as scratch:
        path = Path(scratch) / "examples.sqlite"
        write_examples(path, example_rows(task, self_influence, progress))
        with path.open("rb") as table, objects.writing() as (file, done):
            while chunk := table.read(1 << 20):
                file.write(chunk)
    return m.ExamplesEntry(object=done[0], splits=splits)


def _write_probe(task: Task, model: ModelAtCheckpoints, objects: Objects) -> ObjectRef:
    rows = fixed_rows(len(task.train))
    return objects.add(safetensors.torch.save(probe_outputs(model, read_rows(task.train, rows))))


def _log(folder: Path, version: IndexVersion, started: float) -> None:
    """Append what is of the moment, outside every hash."""
    line = {"built": version.version, "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started))}
    with (folder / "log.jsonl").open("ab") as file:
        file.write(orjson.dumps(line | {"seconds": round(time.time() - started, 1)}) + b"\n")
