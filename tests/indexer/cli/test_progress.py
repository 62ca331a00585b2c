"""Progress on standard error, one bar a stage; standard output stays clean for results."""

import pytest

from indexer.building.estimate import Estimate
from indexer.cli.progress import announce, bars, console


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


@pytest.mark.parametrize("there", [0, 8192])
def test_an_estimate_is_told_and_where_a_build_goes_on(there: int, capsys: pytest.CaptureFixture[str]) -> None:
    estimate = Estimate(60_000, there, 5, 2**20, 2**21, 0, 2**30, 2**20, 2**31, seconds=120.0)
    announce(estimate)
    lines = capsys.readouterr().err.splitlines()
    told = ["going on with a build that was stopped: 8,192 rows are there"] if there else []
    assert lines == [*told, estimate.line()]
