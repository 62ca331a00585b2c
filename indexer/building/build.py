"""The build, from task and checkpoints to a committed index.

    probe -> plan -> bases -> vectors, batch by batch -> examples -> probe outputs, card -> manifest (the commit point)

Objects are content-addressed and nothing names them before the manifest, so a build that dies leaves no index, and
nothing half written under a name that anybody reads.
"""

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import safetensors.torch
from torch import Tensor

from indexer.building.card import CardQueries, affordable_queries, card_queries, measured_card, query_vectors
from indexer.building.examples import example_rows
from indexer.building.fit import fitted_method
from indexer.building.plan import PLANNED_ON, machine_memory, make_plan, refuse_too_large, running
from indexer.building.progress import Progress, silent
from indexer.building.selection import selected
from indexer.building.source import Source, open_source, options_of
from indexer.building.spec import BuildSpec
from indexer.building.vectors import Pass, VectorRows, write_vectors
from indexer.checkpoints.eta import approximate
from indexer.checkpoints.groups import names_are_kept
from indexer.checkpoints.optimizer import Optimizer
from indexer.checkpoints.step_sizes import StepSizes
from indexer.gradients.at_checkpoints import ModelAtCheckpoints
from indexer.gradients.layout import Layout
from indexer.gradients.memory import bytes_per_example
from indexer.gradients.outputs import fixed_rows, probe_outputs
from indexer.index import manifest as m
from indexer.index.card import CardEntry
from indexer.index.examples import write_examples
from indexer.index.objects import Objects
from indexer.index.store import open_store
from indexer.index.versions import IndexVersion, building_in, commit, refuse_existing
from indexer.methods.method import Method
from indexer.projection.random_matrix import SCHEME
from indexer.task import Task, read_rows

NO_CARD = "no card: the gradients of one query do not fit, so how right the scores are was not measured"
CARD_SHARE = 8  # one part in so many of the machine's memory may go to the gradients of the card's queries


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
    with running(spec.threads):
        run, choice = selected(spec)
        source = open_source(task, run, options_of(spec))
        if spec.coded_bytes is not None:  # before the sample is read; float32 rows are known after it
            refuse_too_large(len(task.train), spec.coded_bytes, folder)
        plan = _plan(task, spec, source)
        step_sizes = None if spec.preconditioner is None else source.step_sizes()
        ready, fitted = fitted_method(task, spec, source, plan, step_sizes, progress)
        method = ready.method
        most = min(spec.card_queries, affordable_queries(method, task, machine_memory() // CARD_SHARE))
        queries = card_queries(task, most)
        without_card = [NO_CARD] if most < min(1, spec.card_queries) else []
        refuse_too_large(len(task.train), ready.row_bytes, folder)
        with building_in(folder) as objects:
            checkpoints = _write_checkpoints(source, objects)
            rows = write_vectors(task, ready, queries, objects, progress)
            entry = _method_entry(spec.method, method, fitted, objects)
            vectors = _vectors_entry(ready, rows.shards, objects)
            manifest = m.Manifest(
                format=m.FORMAT,
                method=entry,
                task=m.TaskEntry(
                    labels=None if task.labels is None else list(task.labels), input=task.codec.describe()
                ),
                checkpoints=checkpoints,
                eta_convention=spec.eta,
                blocks=_block_entries(source.model.layout),
                sequential=source.model.layout.sequential,
                left_out=list(source.model.layout.left_out),
                optimizer=_optimizer_entry(source),
                caveats=[*_caveats(source, step_sizes, spec.eta), *without_card],
                choice=choice,
                card=_card(ready, queries, rows, (entry, vectors), objects),
                vectors=vectors,
                search=m.SearchEntry(kind="flat"),
                examples=[_write_examples(task, rows, objects, progress)],
                probe=_write_probe(task, source.model, objects),
                plan=plan,
            )
            version = commit(folder, manifest)
    _log(folder, version, started)
    return version


def _plan(task: Task, spec: BuildSpec, source: Source) -> m.Plan:
    some = read_rows(task.train, range(min(len(task.train), PLANNED_ON)))
    return make_plan(
        spec,
        bytes_per_example=bytes_per_example(source.model, some),
        channels_last=source.model.placement.channels_last,
    )


def _method_entry(name: str, method: Method, fitted: Mapping[str, Tensor], objects: Objects) -> m.MethodEntry:
    return m.MethodEntry(
        name=name,
        parameters=dict(method.parameters),
        fitted=objects.add(safetensors.torch.save(dict(fitted))) if fitted else None,
        random_scheme=SCHEME,
        random_check=dict(method.random_check),
    )


def _optimizer_entry(source: Source) -> dict[str, Any] | None:
    optimizer = source.run.optimizer
    return None if optimizer is None else {"name": optimizer.name, **optimizer.parameters}


def _caveats(source: Source, step_sizes: Sequence[StepSizes] | None, eta: str) -> list[str]:
    preconditioned = step_sizes is not None
    optimizer = source.run.optimizer or (Optimizer("adam") if preconditioned else None)
    found = [] if optimizer is None else [optimizer.caveat(preconditioned)]
    if not all(sizes.named for sizes in step_sizes or ()):
        found.append("the optimizer's state keeps no names: taken to be in the order of model.parameters()")
    found += [*source.run.caveats, *source.weights.caveats, approximate(source.run, eta)]
    if any(_rate_entries(etas) for etas in source.etas) and not names_are_kept(source.run.groups):
        found.append("the optimizer keeps no names: its groups are told apart by shape, in the model's order")
    return [caveat for caveat in found if caveat is not None]


def _block_entries(layout: Layout) -> list[m.BlockEntry]:
    return [
        m.BlockEntry(name=b.name, parameters=list(b.parameters), shape=b.shape, path=b.path, note=b.note)
        for b in layout.blocks
    ]


def _vectors_entry(ready: Pass, shards: list[m.ShardEntry], objects: Objects) -> m.VectorsEntry:
    code = None
    if ready.code is not None:
        code = m.CodeEntry(object=objects.add(ready.code.tensors()), row_bytes=ready.code.row_bytes)
    return m.VectorsEntry(
        dtype="<f4" if code is None else "coded",
        rows=sum(shard.rows for shard in shards),
        width=ready.method.parts[-1].stop,
        parts=[m.PartEntry(name=p.name, start=p.start, stop=p.stop) for p in ready.method.parts],
        shards=shards,
        code=code,
    )


def _card(
    ready: Pass,
    queries: CardQueries | None,
    rows: VectorRows,
    entries: tuple[m.MethodEntry, m.VectorsEntry],
    objects: Objects,
) -> CardEntry | None:
    """Measure the stored vectors; None where nobody asked or the method has no exact scores."""
    if queries is None or rows.exact is None:
        return None
    method, vectors = entries
    bases = [method.fitted, None if vectors.code is None else vectors.code.object]
    return measured_card(
        queries,
        rows.exact,
        query_vectors(ready.method, queries),
        open_store(objects, vectors),
        basis_bytes=sum(base.bytes for base in bases if base is not None),
    )


def _write_checkpoints(source: Source, objects: Objects) -> list[m.CheckpointEntry]:
    return [
        m.CheckpointEntry(
            object=objects.add(safetensors.torch.save(_unshared(state))),
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


def _rate_entries(etas: Mapping[str, float]) -> list[m.RateEntry]:
    """Return the parameters by their eta; none where all have one."""
    by_eta: dict[float, list[str]] = {}
    for name, eta in etas.items():
        by_eta.setdefault(eta, []).append(name)
    return [m.RateEntry(parameters=names, eta=eta) for eta, names in by_eta.items()] if len(by_eta) > 1 else []


def _unshared(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give tied weights a copy each: safetensors keeps no tensor that shares its memory."""
    return {name: tensor.detach().clone().contiguous() for name, tensor in state.items()}


def _write_examples(task: Task, rows: VectorRows, objects: Objects, progress: Progress) -> m.ExamplesEntry:
    splits = {name: len(examples) for name in ("train", "test") if (examples := task.split(name)) is not None}
    with tempfile.TemporaryDirectory(dir=objects.folder, prefix=".new-") as scratch:
        path = Path(scratch) / "examples.sqlite"
        write_examples(path, example_rows(task, rows.self_influence, rows.content, progress))
        with path.open("rb") as table, objects.writing() as (file, done):
            while chunk := table.read(1 << 20):
                file.write(chunk)
    return m.ExamplesEntry(object=done[0], splits=splits)


def _write_probe(task: Task, model: ModelAtCheckpoints, objects: Objects) -> m.ProbeEntry:
    rows = fixed_rows(len(task.train))
    found = objects.add(safetensors.torch.save(probe_outputs(model, read_rows(task.train, rows))))
    return m.ProbeEntry(object=found, ids=[str(row) for row in rows])


def _log(folder: Path, version: IndexVersion, started: float) -> None:
    """Append what is of the moment, outside every hash."""
    line = {"built": version.version, "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started))}
    with (folder / "log.jsonl").open("ab") as file:
        file.write(orjson.dumps(line | {"seconds": round(time.time() - started, 1)}) + b"\n")
