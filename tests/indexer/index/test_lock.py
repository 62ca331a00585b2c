"""One writer at a time: a second one is refused, in this process or another, and the lock ends with its holder."""

import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

from indexer.errors import BuildError
from indexer.index.lock import remove_lock, writing_in


def test_a_second_writer_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    with writing_in(folder):
        with pytest.raises(BuildError, match=r"another build or edit is at work in '.*new'; wait for it"):
            with writing_in(folder):
                pytest.fail("two writers")
    with writing_in(folder):
        assert [path.name for path in folder.iterdir()] == ["lock"]


def test_a_writer_that_is_killed_leaves_no_lock(tmp_path: Path) -> None:
    program = (
        "import os, pathlib, sys\nfrom indexer.index.lock import remove_lock, writing_in\n"
        "with writing_in(pathlib.Path(sys.argv[1])):\n    os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    with writing_in(tmp_path):
        assert (tmp_path / "lock").is_file()


def test_a_holder_may_remove_the_folder(tmp_path: Path) -> None:
    with writing_in(tmp_path / "empty"):
        remove_lock(tmp_path / "empty")
    assert not (tmp_path / "empty").exists()
    with writing_in(tmp_path / "full"):
        (tmp_path / "full" / "file").touch()
        remove_lock(tmp_path / "full")
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["file"]


def test_a_lock_that_was_removed_locks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second writer has opened the file when its holder removes it: it must not hold a file that nobody sees."""
    flock, removed = fcntl.flock, list[bool]()

    def late(file: object, how: int) -> None:
        if not removed:
            removed.append(True)
            (tmp_path / "lock").unlink()
        flock(file, how)  # type: ignore[arg-type]  # a file, as `writing_in` opens it

    monkeypatch.setattr(fcntl, "flock", late)
    with writing_in(tmp_path):
        assert (tmp_path / "lock").is_file()
        with pytest.raises(BuildError, match="another build or edit is at work"), writing_in(tmp_path):
            pytest.fail("two writers")
