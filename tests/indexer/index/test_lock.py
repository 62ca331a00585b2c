"""One writer at a time: a second one is refused, in this process or another, and the lock ends with its holder."""

import subprocess
import sys
from pathlib import Path

import pytest

from indexer.errors import BuildError
from indexer.index.lock import writing_in


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
        "import os, pathlib, sys\nfrom indexer.index.lock import writing_in\n"
        "with writing_in(pathlib.Path(sys.argv[1])):\n    os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    with writing_in(tmp_path):
        assert (tmp_path / "lock").is_file()
