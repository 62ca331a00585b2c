"""Fitting: the method of a build, and how its rows are coded, from a sample of the training set where they need one."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import safetensors.torch
from torch import Tensor

from indexer.building.begin import Beginning
from indexer.building.card import CardQueries, card_queries, planned_queries
from indexer.building.journal import FitRecord, Journal, Kept
from indexer.building.progress import Progress
from indexer.building.sample import digest, read_sample, sample_rows
from indexer.building.source import Source
from indexer.building.spec import BuildSpec
from indexer.building.vectors import Pass, row_scales
from indexer.checkpoints.step_sizes import StepSizes
from indexer.errors import BuildError
from indexer.index.code import Code, read_code
from indexer.index.fit_code import fit_code
from indexer.index.manifest import CodeEntry, Plan
from indexer.index.objects import Objects
from indexer.methods.method import Method, Sample
from indexer.methods.registry import method_kind
from indexer.projection.pca import DEFAULT_SAMPLE
from indexer.task import Task, content_hash

PASSES = 2  # over the sample at every checkpoint, for bases


@dataclass(frozen=True, slots=True)
class Fit:
    """A method that is ready, the card's queries (None: no card), and the record of the journal that says so."""

    ready: Pass
    queries: CardQueries | None
    kept: Kept[FitRecord]


def kept_fit(beginning: Beginning, journal: Journal, after: str, progress: Progress) -> Fit:
    """Return the fit that the journal has, or fit and note it.

    Raises:
        BuildError: an example that the journal's fit was made with has changed, or there is nothing to fit on.
    """
    kept = journal.fit(after)
    if kept is not None:
        return _read_fit(beginning, journal.objects, kept)
    task, spec, source = beginning.task, beginning.spec, beginning.source
    ready, tensors = fitted_method(task, spec, source, beginning.plan, beginning.step_sizes, progress)
    most = planned_queries(ready.method, task, spec.card_queries)
    queries = card_queries(task, most)
    objects, code = journal.objects, ready.code
    record = FitRecord(
        fitted=objects.add(safetensors.torch.save(dict(tensors))) if tensors else None,
        code=None if code is None else CodeEntry(object=objects.add(code.tensors()), row_bytes=code.row_bytes),
        queries=most,
        sample=_digest_of_sample(task, spec),
        asked=_digest_of_queries(queries),
    )
    return Fit(ready, queries, journal.write_fit(record, after))


def _read_fit(beginning: Beginning, objects: Objects, kept: Kept[FitRecord]) -> Fit:
    """Return a fit as it was noted.

    Raises:
        BuildError: an example that it was made with has changed.
    """
    task, spec, source, record = beginning.task, beginning.spec, beginning.source, kept.record
    queries = card_queries(task, record.queries)
    changed = [
        what
        for what, before, now in (
            ("of the sample that bases and codes were fitted on", record.sample, _digest_of_sample(task, spec)),
            ("that the card asks about", record.asked, _digest_of_queries(queries)),
        )
        if before != now
    ]
    if changed:
        raise BuildError(
            f"an example {changed[0]} has changed since the build that this one goes on with began; give the same "
            "data, or begin anew with `--restart` (restart=True)"
        )
    tensors = {} if record.fitted is None else safetensors.torch.load(objects.read(record.fitted, "fitted tensors"))
    parameters = spec.method_parameters(len(source.model))
    method = method_kind(spec.method).open(source.model, source.etas, parameters, tensors)
    code = None
    if record.code is not None:
        code = read_code(objects.read(record.code.object, "code of the vectors"), method.parts[-1].stop)
    return Fit(Pass(method, code, beginning.plan), queries, kept)


def fitted_method(
    task: Task,
    spec: BuildSpec,
    source: Source,
    plan: Plan,
    step_sizes: Sequence[StepSizes] | None,
    progress: Progress,
) -> tuple[Pass, Mapping[str, Tensor]]:
    """Return what makes the rows of the index, and the tensors that the index must keep of the fit."""
    kind, parameters = method_kind(spec.method), spec.method_parameters(len(source.model))
    projection = parameters["projection"]
    rows = _sample(task, projection)
    by_name = None if step_sizes is None else [sizes.by_name for sizes in step_sizes]
    passes = PASSES * len(source.model)
    fitted = kind.fit(
        source.model, source.etas, parameters, read_sample(task, rows, plan.batch_size, passes, progress), by_name
    )
    method = kind.open(source.model, source.etas, parameters, fitted.tensors)
    code = fitted.code
    if code is None and spec.bytes_per_example is not None:
        code = _code(method, read_sample(task, rows, plan.batch_size, 1, progress), spec.bytes_per_example)
    return Pass(method, code, plan), fitted.tensors


def _code(method: Method, sample: Sample, bytes: int) -> Code:
    """Return the code of vectors that need no bases, from those of the sample."""
    found = [method.train_rows(batch) for batch in sample()]
    vectors = [rows.vectors.float().cpu().numpy() for rows in found]
    scales = [row_scales(of, rows.self_influence) for of, rows in zip(vectors, found, strict=True)]
    return fit_code(np.concatenate(vectors), np.concatenate(scales), bytes)


def _sample(task: Task, projection: Mapping[str, Any]) -> list[int]:
    return sample_rows(len(task.train), projection.get("sample", DEFAULT_SAMPLE), projection.get("seed", 0))


def _digest_of_sample(task: Task, spec: BuildSpec) -> str:
    """Return a hash of the sample, or nothing where float32 rows need none."""
    return "" if spec.coded_bytes is None else digest(task.train, _sample(task, spec.projection))


def _digest_of_queries(queries: CardQueries | None) -> str:
    if queries is None:
        return ""
    contents = [content_hash(x, y) for x, y in zip(*queries.batch, strict=True)]
    return hashlib.sha256("".join(contents).encode()).hexdigest()
