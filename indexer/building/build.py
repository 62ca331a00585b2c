"""The build, from task and checkpoints to a committed index.

    probe -> plan -> bases -> vectors, shard by shard -> card, search, examples -> manifest (the commit point)

Objects are content-addressed and nothing names them before the manifest, so a build that dies leaves no index. What it
has finished by then stands in its journal, and the same command goes on from there.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import orjson

from indexer.atomic import naming_full_disk
from indexer.building.begin import Beginning, begin, rows_by_split
from indexer.building.card import NO_CARD, measured_card, query_vectors
from indexer.building.entries import block_entries, caveats, method_entry, optimizer_entry, vectors_entry
from indexer.building.estimate import Estimate, estimate, when_full
from indexer.building.examples import example_rows
from indexer.building.fit import Fit, kept_fit
from indexer.building.journal import Journal, ShardJournal
from indexer.building.plan import running
from indexer.building.progress import Progress, silent
from indexer.building.resume import journal_in, plan_of, sweep
from indexer.building.search import fitted_search
from indexer.building.spec import BuildSpec
from indexer.building.timing import seconds
from indexer.building.vectors import VectorRows, write_vectors
from indexer.index import manifest as m
from indexer.index.card import CardEntry
from indexer.index.examples import write_examples
from indexer.index.objects import Objects
from indexer.index.store import open_store
from indexer.index.versions import IndexVersion, commit, is_index, open_version
from indexer.task import Task

LOG = "log.jsonl"


def build(
    task: Task,
    spec: BuildSpec,
    out: str | Path,
    progress: Progress = silent,
    *,
    restart: bool = False,
    announce: Callable[[Estimate], object] | None = None,
) -> IndexVersion:
    """Build an index into a folder that holds none yet, and return it.

    A build that was stopped there, however it was, goes on where it stopped, if it is given the same task, data and
    spec; restart: it is thrown away, and all is made anew. announce: is told what the build will take, before it
    starts; a batch is measured for it.

    Raises:
        BuildError: the folder holds an index, active or not, or what a stopped build was begun with differs.
        CheckpointError: a checkpoint is missing, has no learning rate or does not fit the model.
        DiskFullError: the disk filled up; the build goes on when it has room.
        TaskError: the task or its model does not keep its contract (see `indexer.gradients.probe`).
        TooLargeError: the build would not fit the disk or the memory; nothing was written.
    """
    folder, started = Path(out), time.time()
    plan = plan_of(folder, restart=restart)
    with running(spec.threads if plan is None else plan.threads):
        beginning = begin(task, spec, plan)
        expected = estimate(beginning, folder, None if plan is None else Journal(folder))
        expected.refuse_too_large(folder)
        if announce is not None:
            announce(replace(expected, seconds=seconds(beginning, expected.there)))
        with (
            naming_full_disk(folder, lambda: when_full(expected, folder)),
            journal_in(folder, beginning, restart=restart) as (journal, kept),
        ):
            committed = is_index(folder)  # it was stopped between its commit and its end
            if not committed:
                commit(folder, _manifest(beginning, journal, kept.seal, progress))
            version = open_version(folder)
            if not (committed and (folder / LOG).exists()):  # else it has this line, or those of edits since
                _log(folder, version, started)
            journal.remove()
    return version


def _manifest(beginning: Beginning, journal: Journal, after: str, progress: Progress) -> m.Manifest:
    """Make every object that the journal does not have, and return the manifest that names them."""
    task, spec, source, record = beginning.task, beginning.spec, beginning.source, beginning.record
    objects = journal.objects
    fit = kept_fit(beginning, journal, after, progress)
    shards = ShardJournal(journal, fit.kept.seal)
    rows = write_vectors(task, fit.ready, fit.queries, objects, progress, shards)
    vectors = vectors_entry(fit.ready, rows.shards, fit.kept.record.code)
    without_card = [NO_CARD] if fit.kept.record.queries < min(1, spec.card_queries) else []
    manifest = m.Manifest(
        format=m.FORMAT,
        method=method_entry(spec.method, fit.ready.method, fit.kept.record.fitted),
        task=record.task,
        checkpoints=record.checkpoints,
        eta_convention=spec.eta,
        blocks=block_entries(source.model.layout),
        sequential=source.model.layout.sequential,
        left_out=list(source.model.layout.left_out),
        optimizer=optimizer_entry(source),
        caveats=[*caveats(source, beginning.step_sizes, spec.eta), *without_card],
        choice=beginning.choice,
        card=_card(fit, rows, vectors, objects),
        vectors=vectors,
        search=fitted_search(task, fit.ready.method, vectors, objects, progress),
        examples=[_write_examples(task, rows, objects, progress)],
        probe=record.probe,
        plan=record.plan,
    )
    sweep(objects, [ref.sha256 for ref in manifest.objects().values()])
    return manifest


def _card(fit: Fit, rows: VectorRows, vectors: m.VectorsEntry, objects: Objects) -> CardEntry | None:
    """Measure the stored vectors; None where nobody asked or the method has no exact scores."""
    if fit.queries is None or rows.exact is None:
        return None
    bases = [fit.kept.record.fitted, None if vectors.code is None else vectors.code.object]
    return measured_card(
        fit.queries,
        rows.exact,
        query_vectors(fit.ready.method, fit.queries),
        open_store(objects, vectors),
        basis_bytes=sum(base.bytes for base in bases if base is not None),
    )


def _write_examples(task: Task, rows: VectorRows, objects: Objects, progress: Progress) -> m.ExamplesEntry:
    with tempfile.TemporaryDirectory(dir=objects.folder, prefix=".new-") as scratch:
        path = Path(scratch) / "examples.sqlite"
        write_examples(path, example_rows(task, rows.self_influence, rows.content, progress))
        with path.open("rb") as table, objects.writing() as (file, done):
            while chunk := table.read(1 << 20):
                file.write(chunk)
    return m.ExamplesEntry(object=done[0], splits=rows_by_split(task))


def _log(folder: Path, version: IndexVersion, started: float) -> None:
    """Append what is of the moment, outside every hash."""
    line = {"built": version.version, "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started))}
    with (folder / LOG).open("ab") as file:
        file.write(orjson.dumps(line | {"seconds": round(time.time() - started, 1)}) + b"\n")
