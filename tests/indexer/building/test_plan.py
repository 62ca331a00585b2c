"""The plan: boundaries of batches and shards, threads, and the memory that a batch may take."""

import os
import platform
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.building.plan import batches, machine, machine_memory, make_plan, running, shards
from indexer.building.spec import BuildSpec
from indexer.errors import TooLargeError
from indexer.index.manifest import Plan

GIB = 2**30


@given(st.integers(0, 500), st.integers(1, 600))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_batches_cover_every_row_once_in_order(rows: int, size: int) -> None:
    found = batches(rows, size)
    assert [row for batch in found for row in batch] == list(range(rows))
    assert all(len(batch) == size for batch in found[:-1])
    assert all(0 < len(batch) <= size for batch in found)


def planned(spec: BuildSpec, bytes_per_example: int = 1000) -> Plan:
    """A plan for a model with channels last."""
    return make_plan(spec, bytes_per_example=bytes_per_example, channels_last=True)


def test_a_plan_fixes_what_results_depend_on() -> None:
    with running(3):
        plan = planned(BuildSpec(Path("run"), batch_size=7))
    assert (plan.batch_size, plan.threads, plan.dtype) == (7, 3, "float32")
    assert (plan.memory_format, plan.device) == ("channels_last", "cpu")
    assert plan.versions["torch"] == torch.__version__.split("+")[0] or plan.versions["torch"] == torch.__version__
    assert set(plan.versions) == {"proponent", "torch", "numpy", "faiss-cpu", "pillow", "python"}


@pytest.mark.parametrize(
    ("gib", "size"), [(1 / 1024, 128), (1 / 128, 128), (1 / 127, 64), (1 / 5, 4), (1 / 2, 2), (1.0, 1)]
)
@pytest.mark.usefixtures("small_machine")
def test_a_batch_takes_a_quarter_of_the_memory(gib: float, size: int) -> None:
    assert planned(BuildSpec(Path("run")), int(gib * GIB)).batch_size == size


@pytest.mark.usefixtures("small_machine")
def test_an_example_that_does_not_fit_is_refused_unless_the_user_decides() -> None:
    expected = "the gradients of one example take 1.5 GiB; a batch may take 1.0 GiB of this machine's memory. Index"
    with pytest.raises(TooLargeError, match=expected):
        planned(BuildSpec(Path("run")), 3 * GIB // 2)
    assert planned(BuildSpec(Path("run"), batch_size=1), 3 * GIB // 2).batch_size == 1


@pytest.mark.usefixtures("small_machine")
@pytest.mark.parametrize(("limit", "memory"), [("max\n", 4 * GIB), (f"{GIB}\n", GIB), (f"{9 * GIB}\n", 4 * GIB)])
def test_a_container_may_have_less_than_its_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, memory: int
) -> None:
    (tmp_path / "memory.max").write_text(limit)
    monkeypatch.setattr("indexer.building.plan._CGROUP", tmp_path / "memory.max")
    assert machine_memory() == memory


def test_the_process_gets_its_threads_back() -> None:
    before = torch.get_num_threads()
    with running(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    with running(None):
        assert torch.get_num_threads() == before
    with pytest.raises(RuntimeError, match="out of luck"), running(before + 1):
        raise RuntimeError("out of luck")
    assert torch.get_num_threads() == before


@pytest.fixture
def small_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """4 GiB of memory, in no container."""
    monkeypatch.setattr("indexer.building.plan._CGROUP", tmp_path / "none")
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": GIB // 1024, "SC_PAGE_SIZE": 4096}.__getitem__)


@given(st.integers(0, 3000), st.integers(1, 40), st.integers(1, 2**24))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_shards_are_whole_batches_within_their_bounds(rows: int, batch_size: int, row_bytes: int) -> None:
    found = shards(rows, batch_size, row_bytes)
    assert [row for shard in found for row in shard] == list(range(rows))
    assert len({len(shard) for shard in found[:-1]}) <= 1
    for shard in found:
        assert shard.start % batch_size == 0
        assert len(shard) <= batch_size or (len(shard) <= 64 * batch_size and len(shard) * row_bytes <= 256 * 2**20)


def test_usual_shards_have_64_batches() -> None:
    assert shards(20_000, 128, 512) == [range(8192), range(8192, 16384), range(16384, 20_000)]


def test_the_kind_of_processor_is_named() -> None:
    assert machine("cpu") == f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
