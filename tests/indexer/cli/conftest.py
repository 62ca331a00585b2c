"""Running commands in process, on the tiny task as a user would name it: by a file."""

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from service.cli import make_cli

Command = Callable[..., Result]


@pytest.fixture
def command() -> Command:
    """Return a function that runs a command line; errors of ours are raised, as `main` would see them."""

    def run(*arguments: object) -> Result:
        words = [str(argument) for argument in arguments]
        return CliRunner().invoke(make_cli(words[:1]), words, env={"COLUMNS": "160"}, catch_exceptions=False)

    return run


@pytest.fixture
def task_file(tmp_path: Path) -> str:
    """The tiny task by its file."""
    (tmp_path / "digits.py").write_text("from tests.tiny import tiny_task\ntask = tiny_task()\n")
    return f"{tmp_path / 'digits.py'}:task"
