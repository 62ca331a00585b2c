"""The picture of a choice: what it says, what it marks, and that a spike does not flatten it."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexer.checkpoints.choose import choose
from indexer.checkpoints.history import history
from indexer.checkpoints.run import Run
from indexer.errors import MissingExtraError
from indexer.evaluate import choice_plot
from indexer.evaluate.choice_plot import plot_choice
from tests.indexer.checkpoints.curves import decay, run_of

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def known() -> Run:
    """A run of which everything is noted, with spikes of 1e6 in loss and gradient norm."""
    losses, norms = decay(200.0)[:1500], np.exp(-np.arange(1500) / 400)
    losses[::300], norms[::300] = 1e6, 1e6
    run = run_of(losses, [None, *range(100, 1501, 100)])
    noted = history(run.history.steps.tolist(), [[0.1]] * 1500, losses.tolist(), norms.tolist())
    return replace(run, history=noted, steps_per_epoch=500.0)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that are saved."""
    from matplotlib import rcParams
    from matplotlib.figure import Figure

    figures: list[Any] = []
    save = Figure.savefig

    def keep(figure: Figure, *arguments: Any, **options: Any) -> None:
        figures.append(figure)
        save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    monkeypatch.setitem(rcParams, "svg.fonttype", "none")  # text as text
    return figures


def test_the_picture_says_what_it_shows(known: Run, drawn: list[Any], tmp_path: Path) -> None:
    plot_choice(choose(known, 4), known, tmp_path / "new" / "a.svg")
    text = (tmp_path / "new" / "a.svg").read_text()
    axes = ("training loss", "gradient norm", "step of the optimizer", "epoch", "learning rate (dashed)")
    for expected in ("4 of 16 checkpoints chosen, made", *axes, "loss, as noted", "level", "another checkpoint"):
        assert expected in text
    assert "not recorded" not in text


def test_the_chosen_are_marked_in_both_panels_and_the_others_are_ticks(
    known: Run, drawn: list[Any], tmp_path: Path
) -> None:
    choice = choose(known, 4)
    plot_choice(choice, known, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(PNG)
    chosen = {c.step for c in choice.chosen}
    for axes in drawn[0].axes[:2]:
        upright = [(line.get_xdata()[0], line.get_ydata()[1]) for line in axes.lines if len(set(line.get_xdata())) == 1]
        assert {step for step, top in upright if top == 1} == chosen
        assert {step for step, top in upright if top < 1} == set(range(100, 1501, 100)) - chosen
    dots = next(line for line in drawn[0].axes[0].lines if line.get_label() == "chosen")
    assert dots.get_ydata().tolist() == [v.level for v in choice.verdicts if v.chosen]


def test_spikes_do_not_flatten_the_curves(known: Run, drawn: list[Any], tmp_path: Path) -> None:
    plot_choice(choose(known, 4), known, tmp_path / "a.png")
    upper, lower = drawn[0].axes[:2]
    assert -0.5 < upper.get_ylim()[0] < 0.1 and 2.2 < upper.get_ylim()[1] < 2.6
    assert lower.get_ylim()[1] < 2


def test_what_is_not_noted_is_said_or_left_out(drawn: list[Any], tmp_path: Path) -> None:
    run = run_of(decay(), range(500, 5001, 500))
    plot_choice(choose(run, 4), run, tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text()
    assert "gradient norm: not recorded" in text
    assert "epoch" not in text and "learning rate" not in text
    light = next(line for line in drawn[0].axes[0].lines if line.get_label() == "loss, as noted")
    assert len(light.get_xdata()) == choice_plot.THIN  # of 10,000


def test_without_matplotlib_the_extra_is_named(known: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"plots need matplotlib: pip install 'proponent\[plot\]'"):
        plot_choice(choose(known, 4), known, tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()
