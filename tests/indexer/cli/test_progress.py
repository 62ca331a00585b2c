"""Progress on standard error, one bar a stage; standard output stays clean for results."""

import pytest

from indexer.cli.progress import bars, console


def test_each_stage_is_a_bar_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with bars() as show:
        for done in (1, 2, 3):
            show("vectors", done, 3)
        show("examples", 5, 10)
    out, err = capsys.readouterr()
    assert out == ""
    shown = [line.split() for line in err.splitlines() if line.strip()]
    assert [(line[0], line[2]) for line in shown] == [("vectors", "3/3"), ("examples", "5/10")]


def test_messages_go_to_standard_error_too(capsys: pytest.CaptureFixture[str]) -> None:
    console.print("ready")
    assert capsys.readouterr() == ("", "ready\n")


def test_an_error_passes_through_the_bars() -> None:
    with pytest.raises(ValueError, match="in the middle"), bars() as show:
        show("vectors", 1, 2)
        raise ValueError("in the middle")
