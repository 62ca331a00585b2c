"""What a build fits: bases and codes for its bytes, from the sample, and nothing where nothing is to be fitted."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from indexer import BuildSpec, Task
from indexer.building.fit import fitted_method
from indexer.building.plan import make_plan
from indexer.building.progress import silent
from indexer.building.sample import sample_rows
from indexer.building.selection import selected
from indexer.building.source import Source, open_source, options_of
from indexer.building.vectors import Pass
from indexer.index.fit_code import fit_code
from indexer.methods.registry import method_kind
from indexer.task import read_rows
from tests.reference import exact_self_influence, relative_error
from tests.tiny import cross_entropy, tiny_model

ETA = 0.1  # of all three checkpoints of the tiny run
FLOAT32 = 1e-4  # relative: float32 gradients against float64 ones
SAMPLE = 40
DATA_FREE = [{"name": name, "seed": 0} for name in ("gaussian", "rank1", "countsketch")]

Told = list[tuple[str, int, int]]


@pytest.fixture(scope="module")
def source(task: Task, run: Path) -> Source:
    """The tiny run at its three checkpoints."""
    spec = BuildSpec(run)
    return open_source(task, selected(spec)[0], options_of(spec))


def fitted(task: Task, source: Source, spec: BuildSpec, told: Told | None = None) -> tuple[Pass, Mapping[str, Tensor]]:
    plan = make_plan(spec, bytes_per_example=1000, channels_last=False)
    progress = silent if told is None else lambda *stage: told.append(stage)
    return fitted_method(task, spec, source, plan, None, progress)


@pytest.fixture
def spec(run: Path) -> BuildSpec:
    """The default with a small sample."""
    return BuildSpec(run, projection={"name": "pca", "sample": SAMPLE}, batch_size=16)


@pytest.mark.parametrize("bytes", [16, 33, 100, 512])
def test_a_row_takes_at_most_the_bytes(task: Task, source: Source, spec: BuildSpec, bytes: int) -> None:
    ready, _ = fitted(task, source, replace(spec, bytes_per_example=bytes))
    assert ready.code is not None
    assert bytes - 1 <= ready.row_bytes <= bytes  # half a byte may find no partner
    assert ready.code.width == ready.method.parts[-1].stop


def test_the_tensors_make_the_method_again(task: Task, source: Source, spec: BuildSpec) -> None:
    ready, tensors = fitted(task, source, spec)
    assert dict(ready.method.parameters) == {"projection": {"name": "pca", "bytes": 512, "sample": SAMPLE, "seed": 0}}
    again = method_kind("tracin").open(source.model, source.etas, ready.method.parameters, tensors)
    batch = read_rows(task.train, range(5))
    assert torch.equal(again.train_rows(batch).vectors, ready.method.train_rows(batch).vectors)


def test_bases_are_of_the_sample_alone(task: Task, source: Source, spec: BuildSpec) -> None:
    """A training set that is the sample and nothing else, and all of it is asked for: the same bases."""
    rows = sample_rows(len(task.train), SAMPLE, seed=0)
    small = replace(task, train=torch.utils.data.TensorDataset(*read_rows(task.train, rows)))
    one, other = (fitted(of, source, spec)[1] for of in (task, small))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_another_seed_takes_another_sample(task: Task, source: Source, spec: BuildSpec) -> None:
    other = replace(spec, projection={**spec.projection, "seed": 1})
    one, two, again = (fitted(task, source, of)[1] for of in (spec, other, spec))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert any(one[name].shape != two[name].shape or not torch.equal(one[name], two[name]) for name in one)


def test_the_sample_is_read_twice_at_every_checkpoint(task: Task, source: Source, spec: BuildSpec) -> None:
    told: Told = []
    fitted(task, source, spec, told)
    assert told[-1] == ("bases", 6 * SAMPLE, 6 * SAMPLE)
    assert [done for _, done, _ in told] == sorted({done for _, done, _ in told})


@pytest.mark.parametrize("projection", [{"name": "identity"}, *DATA_FREE])
def test_without_bytes_nothing_is_fitted_or_read(
    task: Task, source: Source, run: Path, projection: dict[str, Any]
) -> None:
    told: Told = []
    ready, tensors = fitted(task, source, BuildSpec(run, projection=projection), told)
    assert (ready.code, tensors, told) == (None, {}, [])
    assert ready.row_bytes == 4 * ready.method.parts[-1].stop


@pytest.fixture(scope="module")
def norms(task: Task, source: Source) -> Tensor:
    """Of the training examples over all checkpoints, by the loop."""
    batch = read_rows(task.train, range(len(task.train)))
    return exact_self_influence((tiny_model(), cross_entropy), source.weights.files, [ETA] * 3, batch).sum(1).sqrt()


@pytest.mark.parametrize("projection", DATA_FREE, ids=lambda projection: projection["name"])
def test_a_projection_without_data_is_coded_by_its_sample(
    task: Task, source: Source, run: Path, norms: Tensor, projection: dict[str, Any]
) -> None:
    """The code is that of vectors which are made in other batches, over norms by the loop; steps follow a last bit."""
    spec = BuildSpec(run, projection=projection, bytes_per_example=100)
    told: Told = []
    ready, tensors = fitted(task, source, spec, told)
    assert told[-1] == ("bases", 300, 300) and tensors == {}
    assert ready.code is not None and ready.row_bytes <= 100
    assert ready.method.parameters["projection"]["numbers"] == 2 * 96 // 3
    inputs, targets = read_rows(task.train, range(len(task.train)))
    few = zip(torch.split(inputs, 7), torch.split(targets, 7), strict=True)
    rows = [ready.method.train_rows(batch).vectors for batch in few]
    expected = fit_code(torch.cat(rows).numpy(), norms.numpy().astype(np.float32), 100)
    assert (expected.bits != ready.code.bits).mean() < 0.05  # gains that are nearly equal change places
    both = (expected.bits > 0) & (ready.code.bits == expected.bits)
    found, steps = (torch.from_numpy(code.step[both]) for code in (ready.code, expected))
    assert relative_error(found, steps) < FLOAT32
