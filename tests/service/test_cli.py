"""The command line as a whole: a table that tells the truth, help without torch, and errors in one line."""

import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from indexer.errors import IndexFileError
from service import cli
from service.cli import COMMANDS, main, make_cli

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_says_what_the_command_says_of_itself(name: str) -> None:
    place, text = COMMANDS[name]
    module, _, attribute = place.partition(":")
    command = getattr(importlib.import_module(module), attribute)
    if isinstance(command, typer.Typer):
        assert command.info.help == text
    else:
        assert (inspect.getdoc(command) or "").splitlines()[0] == text


def test_help_lists_every_command_with_its_text() -> None:
    result = CliRunner().invoke(make_cli([]), ["--help"], env={"COLUMNS": "200"}, catch_exceptions=False)
    assert result.exit_code == 0
    assert "Which training examples made this model say that?" in result.output
    for name, (_, text) in COMMANDS.items():
        assert name in result.output
        assert text in result.output


def test_no_command_at_all_is_answered_with_the_help() -> None:
    result = CliRunner().invoke(make_cli([]), [], env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert "proponent demo mnist" in result.output


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help_of_its_own(name: str) -> None:
    result = CliRunner().invoke(make_cli([name]), [name, "--help"], env={"COLUMNS": "200"}, catch_exceptions=False)
    assert result.exit_code == 0
    assert COMMANDS[name][1] in result.output
    assert "--help" in result.output


def test_only_the_wanted_command_is_loaded() -> None:
    commands = {info.name: info.callback for info in make_cli(["verify"]).registered_commands}
    assert commands["verify"] is importlib.import_module("indexer.cli.verify").verify
    assert {name for name, callback in commands.items() if callback is cli._not_loaded} == set(COMMANDS) - {"verify"}


def test_an_unknown_command_is_refused() -> None:
    result = CliRunner().invoke(make_cli(["nope"]), ["nope"])
    assert result.exit_code == 2
    assert "No such command 'nope'" in result.output


def test_an_error_of_ours_is_one_line_and_status_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["proponent", "verify", str(tmp_path)])
    with pytest.raises(SystemExit) as stopped:
        main()
    out, err = capsys.readouterr()
    assert (stopped.value.code, out) == (1, "")
    assert err == f"proponent: {str(tmp_path)!r} holds no finished index; build one with `proponent build`\n"


@pytest.mark.parametrize("failure", [IndexFileError("ours"), ValueError("a bug")])
def test_only_errors_of_ours_lose_their_trace(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], failure: Exception
) -> None:
    def fails(wanted: object) -> None:
        raise failure

    monkeypatch.setattr(cli, "make_cli", fails)
    with pytest.raises(SystemExit if isinstance(failure, IndexFileError) else ValueError):
        main()
    assert capsys.readouterr().err == ("proponent: ours\n" if isinstance(failure, IndexFileError) else "")


def python(program: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)


def test_help_is_shown_without_torch() -> None:
    done = python(
        "import atexit, sys; from service.cli import main\n"
        "atexit.register(lambda: print('loaded:', *{'torch', 'numpy', 'fastapi', 'indexer'} & set(sys.modules)))\n"
        "sys.argv = ['proponent', '--help']; main()"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "loaded:"
    assert "serve" in done.stdout


def test_a_process_that_fails_says_so_in_one_line(tmp_path: Path) -> None:
    done = python(
        f"import sys; from service.cli import main; sys.argv = ['proponent', 'inspect', {str(tmp_path)!r}]; main()"
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"proponent: {str(tmp_path)!r} holds no finished index; build one with `proponent build`\n"
