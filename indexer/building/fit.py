"""Fitting: the method of a build, and how its rows are coded, from a sample of the training set where they need one."""

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from indexer.building.progress import Progress
from indexer.building.sample import read_sample, sample_rows
from indexer.building.source import Source
from indexer.building.spec import BuildSpec
from indexer.building.vectors import Pass, row_scales
from indexer.checkpoints.step_sizes import StepSizes
from indexer.index.code import Code
from indexer.index.fit_code import fit_code
from indexer.index.manifest import Plan
from indexer.methods.method import Method, Sample
from indexer.methods.registry import method_kind
from indexer.projection.pca import DEFAULT_SAMPLE
from indexer.task import Task

PASSES = 2  # over the sample at every checkpoint, for bases


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
    rows = sample_rows(len(task.train), projection.get("sample", DEFAULT_SAMPLE), projection.get("seed", 0))
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
