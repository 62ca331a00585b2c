"""What the manifest of a build says of its source, its method and its vectors: values, nothing is written here."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import safetensors.torch
from torch import Tensor

from indexer.building.source import Source
from indexer.building.vectors import Pass
from indexer.checkpoints.eta import approximate
from indexer.checkpoints.groups import names_are_kept
from indexer.checkpoints.optimizer import Optimizer
from indexer.checkpoints.step_sizes import StepSizes
from indexer.gradients.layout import Layout
from indexer.index import manifest as m
from indexer.index.objects import ObjectRef
from indexer.methods.method import Method
from indexer.projection.random_matrix import SCHEME
from indexer.task import Task


def task_entry(task: Task) -> m.TaskEntry:
    """Return what the index remembers of a task."""
    return m.TaskEntry(labels=None if task.labels is None else list(task.labels), input=task.codec.describe())


def checkpoint_entries(source: Source) -> list[m.CheckpointEntry]:
    """Return the checkpoints, each with the object that `state_file` makes of its weights."""
    return [
        m.CheckpointEntry(
            object=ref_of(state_file(state)),
            file=checkpoint.name,
            learning_rate=checkpoint.learning_rates[0] if checkpoint.learning_rates else None,
            eta=next(iter(etas.values())),
            step=checkpoint.step,
            epoch=checkpoint.epoch,
            train_loss=checkpoint.train_loss,
            rates=_rate_entries(etas),
            adapter=checkpoint.adapter,
        )
        for checkpoint, state, etas in zip(source.run.checkpoints, source.weights.files, source.etas, strict=True)
    ]


def state_file(state: Mapping[str, Tensor]) -> bytes:
    """Return weights as a safetensors file, tied ones a copy each: it keeps no tensor that shares its memory."""
    return safetensors.torch.save({name: tensor.detach().clone().contiguous() for name, tensor in state.items()})


def ref_of(data: bytes) -> ObjectRef:
    """Return the ref of the object that holds these bytes."""
    return ObjectRef(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))


def method_entry(name: str, method: Method, fitted: ObjectRef | None) -> m.MethodEntry:
    """Return the method with all that opens it again."""
    return m.MethodEntry(
        name=name,
        parameters=dict(method.parameters),
        fitted=fitted,
        random_scheme=SCHEME,
        random_check=dict(method.random_check),
    )


def vectors_entry(ready: Pass, shards: list[m.ShardEntry], code: m.CodeEntry | None) -> m.VectorsEntry:
    """Return the shards, and what their rows are."""
    return m.VectorsEntry(
        dtype="<f4" if code is None else "coded",
        rows=sum(shard.rows for shard in shards),
        width=ready.method.parts[-1].stop,
        parts=[m.PartEntry(name=p.name, start=p.start, stop=p.stop) for p in ready.method.parts],
        shards=shards,
        code=code,
    )


def block_entries(layout: Layout) -> list[m.BlockEntry]:
    """Return the parameter blocks."""
    return [
        m.BlockEntry(name=b.name, parameters=list(b.parameters), shape=b.shape, path=b.path, note=b.note)
        for b in layout.blocks
    ]


def optimizer_entry(source: Source) -> dict[str, Any] | None:
    """Return what the run was trained with, where it says so."""
    optimizer = source.run.optimizer
    return None if optimizer is None else {"name": optimizer.name, **optimizer.parameters}


def caveats(source: Source, step_sizes: Sequence[StepSizes] | None, eta: str) -> list[str]:
    """Return what a reader of scores must know."""
    preconditioned = step_sizes is not None
    optimizer = source.run.optimizer or (Optimizer("adam") if preconditioned else None)
    found = [] if optimizer is None else [optimizer.caveat(preconditioned)]
    if not all(sizes.named for sizes in step_sizes or ()):
        found.append("the optimizer's state keeps no names: taken to be in the order of model.parameters()")
    found += [*source.run.caveats, *source.weights.caveats, approximate(source.run, eta)]
    if any(_rate_entries(etas) for etas in source.etas) and not names_are_kept(source.run.groups):
        found.append("the optimizer keeps no names: its groups are told apart by shape, in the model's order")
    return [caveat for caveat in found if caveat is not None]


def _rate_entries(etas: Mapping[str, float]) -> list[m.RateEntry]:
    """Return the parameters by their eta; none where all have one."""
    by_eta: dict[float, list[str]] = {}
    for name, eta in etas.items():
        by_eta.setdefault(eta, []).append(name)
    return [m.RateEntry(parameters=names, eta=eta) for eta, names in by_eta.items()] if len(by_eta) > 1 else []
