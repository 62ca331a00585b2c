"""The plan: batch boundaries, threads, and bytes stated before any work."""

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.building.plan import batches, machine_memory, make_plan, refuse_too_large, running
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
    """8 GiB of free disk and 4 GiB of memory, in no container."""
    monkeypatch.setattr("indexer.building.plan._CGROUP", tmp_path / "none")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=8 * GIB))
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": GIB // 1024, "SC_PAGE_SIZE": 4096}.__getitem__)


@pytest.mark.usefixtures("small_machine")
def test_what_fits_is_let_through(tmp_path: Path) -> None:
    refuse_too_large(1_000_000, 3600, tmp_path)


@pytest.mark.usefixtures("small_machine")
@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (1_000_000, "1,000,000 vectors of 4,096 bytes are 3.8 GiB; the memory is 4.0 GiB. Use projection 'pca'"),
        (2_000_000, "2,000,000 vectors of 4,096 bytes are 7.6 GiB; the free disk is 8.0 GiB. Use projection 'pca'"),
    ],
)
def test_what_does_not_fit_is_refused_with_both_numbers(tmp_path: Path, rows: int, expected: str) -> None:
    with pytest.raises(TooLargeError) as exc:
        refuse_too_large(rows, 4096, tmp_path / "not" / "there yet")
    assert str(exc.value).startswith(expected)


def test_the_disk_is_that_of_the_nearest_folder_that_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []

    def usage(path: Path) -> SimpleNamespace:
        asked.append(path)
        return SimpleNamespace(free=GIB)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    monkeypatch.chdir(tmp_path)
    refuse_too_large(1, 1, Path("indexes/new"))
    assert asked == [tmp_path]
