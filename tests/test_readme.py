"""The README's own example, followed to the letter in an empty folder."""

import os
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from indexer.building.spec import BuildSpec, read_spec
from indexer.projection.pca import DEFAULT_SAMPLE
from service.cli import make_cli

REPOSITORY = Path(__file__).parent.parent
README = (REPOSITORY / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """Return the fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def run(command: str, folder: Path) -> str:
    """Run one line of the README with this environment's programs first, and return what it printed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, shell=True, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def in_process(command: str) -> str:
    """Run one line that calls `proponent` without starting Python again, and return what it printed."""
    program, *arguments = shlex.split(command)
    assert program == "proponent"
    done = CliRunner().invoke(make_cli(arguments[:1]), arguments)
    assert done.exit_code == 0, f"{command}\n{done.output}\n{done.exception}"
    return done.stdout


def test_the_example_runs_from_task_to_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for code in blocks("python"):
        (tmp_path / code.split("\n", 1)[0].removeprefix("# ")).write_text(code)
    [commands] = blocks("sh")
    printed = [run(command, tmp_path) for command in commands.splitlines()]
    assert "net" not in printed[2] and "1.weight + 1.bias" in printed[2]
    assert printed[3].count("train/") == 20  # ten proponents, ten opponents
    assert len(run("python ask.py", tmp_path).splitlines()) == 6
    monkeypatch.chdir(tmp_path)
    [edits] = blocks("shell")
    printed = [in_process(command) for command in edits.splitlines()]
    assert "delete" in printed[2] and "relabel" in printed[2]
    assert "train/17 " not in printed[3] and printed[3].count("train/") == 20


def test_the_spec_is_the_default_but_for_its_bytes(tmp_path: Path) -> None:
    [text] = blocks("toml")
    (tmp_path / "build.toml").write_text(text)
    default = BuildSpec(tmp_path)
    spelled = {**default.projection, "sample": DEFAULT_SAMPLE}
    assert read_spec(tmp_path / "build.toml", tmp_path) == replace(default, projection=spelled, bytes_per_example=256)


def test_the_task_is_under_thirty_lines() -> None:
    [code] = [block for block in blocks("python") if block.startswith("# digits.py")]
    assert len(code.splitlines()) < 30


def test_every_command_of_the_table_exists() -> None:
    listed = set(re.findall(r"^\| `proponent ([\w-]+)", README, flags=re.MULTILINE))
    helped = run("proponent --help", REPOSITORY)
    assert listed == set(re.findall(r"^│ (\w[\w-]*) ", helped, flags=re.MULTILINE))


def test_no_figure_is_left_to_fill_in() -> None:
    assert "@@" not in README


def test_the_readme_s_files_exist() -> None:
    links = re.findall(r"!\[[^]]*\]\(([^)]+)\)", README)
    assert links and all((REPOSITORY / link).is_file() for link in links)
