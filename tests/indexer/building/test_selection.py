"""Which checkpoints a build takes: the same as the rule chooses, those at given steps, or all."""

from pathlib import Path

import pytest

from indexer import BuildSpec
from indexer.building.selection import selected
from indexer.checkpoints.choose import choose
from indexer.checkpoints.folder import open_run
from indexer.checkpoints.formats.listing import write_listing
from indexer.errors import ChoiceError


@pytest.fixture
def falling(tmp_path: Path) -> Path:
    """Ten checkpoints of a loss that halves from one to the next."""
    entries = []
    for step in range(1, 11):
        (tmp_path / f"{step}.pt").touch()
        entries.append({"file": f"{step}.pt", "learning_rate": 0.1, "step": step, "train_loss": 2.0**-step})
    write_listing(tmp_path, entries, {})
    return tmp_path


def test_all_are_taken_where_nobody_chose(falling: Path) -> None:
    run, choice = selected(BuildSpec(falling))
    assert [checkpoint.step for checkpoint in run.checkpoints] == list(range(1, 11)) and choice is None


def test_given_steps_are_taken_in_training_order(falling: Path) -> None:
    run, choice = selected(BuildSpec(falling, steps=(7, 2)))
    assert [checkpoint.step for checkpoint in run.checkpoints] == [2, 7]
    assert choice == {"rule": "given steps", "of": 10}


def test_a_build_takes_the_choice_that_the_command_shows(falling: Path) -> None:
    run, choice = selected(BuildSpec(falling, choose=3))
    shown = choose(open_run(falling), 3)
    assert run.checkpoints == shown.chosen and len(run.checkpoints) == 3
    assert choice == {"rule": "steady decrease of the loss", "k": 3, "of": 10, "notes": list(shown.notes)}


def test_a_run_whose_loss_gives_no_choice_is_refused(run: Path) -> None:
    listing = (run / "checkpoints.json").read_text().replace("train_loss", "unknown")
    bare = run.parent / "bare"
    bare.mkdir()
    for path in run.glob("*.safetensors"):
        if ".history." not in path.name:
            (bare / path.name).write_bytes(path.read_bytes())
    (bare / "checkpoints.json").write_text(listing.replace('"history"', '"no history"'))
    with pytest.raises(ChoiceError, match="`--steps`"):
        selected(BuildSpec(bare, choose=2))
