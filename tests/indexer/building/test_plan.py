"""The plan: batch boundaries, threads, and bytes stated before any work."""

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.building.plan import batches, make_plan, refuse_too_large, running
from indexer.building.spec import BuildSpec
from indexer.errors import TooLargeError

GIB = 2**30


@given(st.integers(0, 500), st.integers(1, 600))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_batches_cover_every_row_once_in_order(rows: int, size: int) -> None:
    found = batches(rows, size)
    assert [row for batch in found for row in batch] == list(range(rows))
    assert all(len(batch) == size for batch in found[:-1])
    assert all(0 < len(batch) <= size for batch in found)


def test_a_plan_fixes_what_results_depend_on() -> None:
    plan = make_plan(BuildSpec(Path("run"), batch_size=7, threads=3))
    assert (plan.batch_size, plan.threads, plan.dtype) == (7, 3, "float32")
    assert plan.versions["torch"] == torch.__version__.split("+")[0] or plan.versions["torch"] == torch.__version__
    assert set(plan.versions) == {"proponent", "torch", "numpy", "faiss-cpu", "pillow", "python"}


def test_threads_are_those_of_the_process_unless_given() -> None:
    assert make_plan(BuildSpec(Path("run"))).threads == torch.get_num_threads()


def test_the_process_gets_its_threads_back() -> None:
    before = torch.get_num_threads()
    plan = make_plan(BuildSpec(Path("run"), threads=before + 1))
    with running(plan):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    with pytest.raises(RuntimeError, match="out of luck"), running(plan):
        raise RuntimeError("out of luck")
    assert torch.get_num_threads() == before


@pytest.fixture
def small_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """8 GiB of free disk and 4 GiB of memory."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=8 * GIB))
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": GIB // 1024, "SC_PAGE_SIZE": 4096}.__getitem__)


@pytest.mark.usefixtures("small_machine")
def test_what_fits_is_let_through(tmp_path: Path) -> None:
    refuse_too_large(1_000_000, 900, tmp_path)


@pytest.mark.usefixtures("small_machine")
@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (1_000_000, "1,000,000 vectors of 1,024 numbers are 3.8 GiB; the memory is 4.0 GiB. Use projection 'rank1'"),
        (2_000_000, "2,000,000 vectors of 1,024 numbers are 7.6 GiB; the free disk is 8.0 GiB. Use projection 'rank1'"),
    ],
)
def test_what_does_not_fit_is_refused_with_both_numbers(tmp_path: Path, rows: int, expected: str) -> None:
    with pytest.raises(TooLargeError) as exc:
        refuse_too_large(rows, 1024, tmp_path / "not" / "there yet")
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
