"""The benchmark of an index larger than memory: what is forgotten, what is counted, and where the limit is put."""

import os
from pathlib import Path

import numpy as np
import pytest

from benchmarks import beyond_memory
from benchmarks.beyond_memory import Asked, ask, asked_apart, line
from benchmarks.fit_stage import KEPT
from benchmarks.page_cache import MemoryGroup, forget, mapped, memory_group
from benchmarks.resources import Used
from benchmarks.scale_data import Stored
from indexer.index.manifest import SearchEntry
from tests.stored import WIDTH, few_stored


@pytest.fixture
def stored(tmp_path: Path, rng: np.random.Generator) -> Stored:
    """A few coded rows whose search is flat."""
    (tmp_path / KEPT).write_text(SearchEntry(kind="flat").model_dump_json())
    return few_stored(tmp_path, 500, rng)


def test_what_is_mapped_is_found_and_can_be_read_again(tmp_path: Path, rng: np.random.Generator) -> None:
    rows = rng.normal(size=(4096, 16))
    path = tmp_path / "rows"
    path.write_bytes(rows.tobytes())
    assert mapped(tmp_path) == []
    there = np.memmap(path, dtype=rows.dtype, mode="r", shape=rows.shape)
    [(address, size)] = mapped(tmp_path)
    assert (address, size) == (there.ctypes.data, rows.nbytes)
    np.testing.assert_array_equal(there, rows)
    forget(tmp_path)
    np.testing.assert_array_equal(there, rows)


@pytest.mark.parametrize("cold", [False, True])
def test_every_answer_is_counted(stored: Stored, rng: np.random.Generator, cold: bool) -> None:
    queries = rng.normal(size=(7, WIDTH)).astype(np.float32)
    asked = ask(stored, queries, cold)
    assert len(asked.seconds) == len(asked.read) == len(asked.faults) == 7
    assert asked.opening > 0 and min(asked.seconds) > 0 and asked.anonymous > 0 and asked.mapped > 0


def test_a_line_is_of_the_questions_that_count() -> None:
    asked = Asked(1.5, [9.0, 0.001, 0.002, 0.003], [9 * 2**20, 0, 2**20, 2**21], [9, 0, 1, 2], 3 * 2**20, 4 * 2**20)
    assert line("warm", asked, slice(1, None)) == "| warm | 1.5 s | 2.0 / 3.0 ms | 1.00 MiB | 1 | 3 MiB | 4 MiB |"


def test_a_child_answers_where_it_is_put(
    stored: Stored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its command is run here, so that nothing is imported again."""
    run: list[list[str]] = []

    def watched(command: list[str]) -> Used:
        run.append(command)
        assert beyond_memory.main(command[command.index("--ask") :]) == 0
        return Used(0.0, 0, 0, capsys.readouterr().out)

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(beyond_memory, "watched", watched)
    queries = tmp_path / "queries.npy"
    np.save(queries, np.ones((8, WIDTH), np.float32))
    group = MemoryGroup(tmp_path / "group")
    asked = asked_apart(stored, queries, group.command, cold=True)
    assert len(asked.seconds) == 4  # the half that tuned nothing
    assert run[0][:2] == ["sh", "-c"] and run[0][3] == str(tmp_path / "group") and "--cold" in run[0]


def test_a_folder_without_memory_groups_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="expected a folder of memory groups"), memory_group(tmp_path, 2**30):
        pytest.fail("no group was made")
    assert list(tmp_path.iterdir()) == []


def test_the_limit_is_written_and_the_group_goes_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder in which the system's files appear, and go, by themselves."""
    real_mkdir, real_rmdir = Path.mkdir, Path.rmdir

    def mkdir(folder: Path) -> None:
        real_mkdir(folder)
        (folder / "memory.max").write_text("max")

    def rmdir(folder: Path) -> None:
        (folder / "memory.max").unlink()
        real_rmdir(folder)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    monkeypatch.setattr(Path, "rmdir", rmdir)
    with memory_group(tmp_path, 123) as group:
        assert group.folder == tmp_path / f"proponent-{os.getpid()}"
        assert (group.folder / "memory.max").read_text() == "123"
    assert list(tmp_path.iterdir()) == []
