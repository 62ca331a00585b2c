"""The survey of a task: where the energy is, what would be stored, and that times are those of the parts."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from indexer import BuildSpec, Task, build
from indexer.building.survey import Survey, survey
from indexer.checkpoints.folder import open_run
from indexer.checkpoints.weights import read_weights
from indexer.errors import BuildError, ProbeError
from indexer.task import read_rows
from tests.reference import in_float64, loop_gradients_by_name
from tests.tiny import tiny_model

FLOAT32 = 1e-4  # relative: sums of squares of float32 gradients


@pytest.fixture(scope="module")
def surveyed(task: Task, run: Path) -> Survey:
    return survey(task, run, BuildSpec(run, projection={"name": "rank1", "numbers": 64}))


def test_energy_is_the_share_of_the_squared_norm(surveyed: Survey, task: Task, run: Path) -> None:
    inputs, targets = read_rows(task.train, [i * 300 // 64 for i in range(64)])
    energy = {"1.weight": 0.0, "5.weight": 0.0}
    for checkpoint in open_run(run).checkpoints:
        module = in_float64(tiny_model(), read_weights(checkpoint.path))
        for name, gradient in loop_gradients_by_name(module, task.loss, inputs, targets).items():
            energy[f"{name[0]}.weight"] += gradient.square().sum().item()
    for entry in surveyed.blocks:
        assert entry.energy == pytest.approx(energy[entry.block.name] / sum(energy.values()), rel=FLOAT32)
    assert sum(entry.energy for entry in surveyed.blocks) == pytest.approx(1)


def test_it_says_what_the_build_then_does(surveyed: Survey, task: Task, run: Path, tmp_path: Path) -> None:
    manifest = build(task, BuildSpec(run, projection={"name": "rank1", "numbers": 64}), tmp_path / "index").manifest
    assert surveyed.vector_bytes == 4 * manifest.vectors.width
    assert sum(entry.numbers or 0 for entry in surveyed.blocks) == surveyed.width
    assert (surveyed.rows, surveyed.checkpoints) == (manifest.vectors.rows, len(manifest.checkpoints))
    assert (surveyed.batch_size, surveyed.memory_format) == (manifest.plan.batch_size, manifest.plan.memory_format)
    assert [e.block.name for e in surveyed.blocks] == [entry.name for entry in manifest.blocks]
    assert surveyed.trained and surveyed.left_out == () and surveyed.sequential is None


def test_seconds_of_the_blocks_are_parts_of_the_pass(task: Task, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock that counts its readings: one tick for each timed part, and all of them in the pass around them."""
    ticks = iter(range(10**6))
    monkeypatch.setattr("indexer.building.survey.perf_counter", lambda: float(next(ticks)))
    found = survey(task, run, BuildSpec(run, projection={"name": "rank1", "numbers": 64}))
    assert [entry.seconds * 64 for entry in found.blocks] == [1, 1]
    assert found.step_seconds * 64 == 1
    assert found.seconds * 64 == 5  # two readings for each of two blocks, and its own end
    assert found.build_seconds == found.seconds * 300 * 3


def test_a_task_without_checkpoints_is_measured_at_its_first_weights(task: Task) -> None:
    found = survey(task, None, BuildSpec(Path(), projection={"name": "gaussian", "numbers": 8}))
    assert not found.trained and found.checkpoints == 1
    assert [entry.numbers for entry in found.blocks] == [None, None]  # they share the eight
    assert found.width == 8


@pytest.mark.parametrize("projection", [{"name": "pca"}, {"name": "rank1", "numbers": 64}])
def test_coded_rows_have_a_bound_that_blocks_share(
    task: Task, run: Path, tmp_path: Path, projection: dict[str, Any]
) -> None:
    spec = BuildSpec(run, projection=projection, bytes_per_example=64)
    found = survey(task, run, spec)
    code = build(task, spec, tmp_path / "index").manifest.vectors.code
    assert code is not None and code.row_bytes <= found.vector_bytes == found.coded_bytes == 64
    assert [entry.numbers for entry in found.blocks] == [None, None]
    assert found.width > 0 and found.seconds > 0


def test_a_general_path_is_named_and_takes_its_share_of_time(task: Task) -> None:
    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.inner = nn.Parameter(torch.eye(10)), tiny_model()

        def forward(self, x: Tensor) -> Tensor:
            outputs: Tensor = self.inner(x)
            return outputs @ self.weight

    found = survey(replace(task, model=Product), None, BuildSpec(Path(), parameters=["weight", "inner.5.*"]))
    assert [entry.block.path for entry in found.blocks] == ["vmap", "factors"]
    assert found.left_out == ("inner.1.weight", "inner.1.bias")
    assert 0 <= found.blocks[0].seconds <= found.seconds


def test_what_a_build_would_refuse_is_refused(task: Task) -> None:
    with pytest.raises(BuildError, match=r"parameters: 'head.*' fits no trainable parameter"):
        survey(task, None, BuildSpec(Path(), parameters=["head.*"]))
    with pytest.raises(ProbeError, match="use reduction='none'"):
        survey(replace(task, loss=nn.CrossEntropyLoss()), None, BuildSpec(Path()))


def test_only_the_checkpoints_that_a_build_would_take_are_measured(task: Task, run: Path) -> None:
    found = survey(task, run, BuildSpec(run, projection={"name": "rank1", "numbers": 64}, steps=(228,)))
    assert found.checkpoints == 1 and found.trained
