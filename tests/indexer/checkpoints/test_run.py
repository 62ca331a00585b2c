"""Runs: checkpoints by step, and the names for messages."""

from pathlib import Path

import pytest

from indexer.checkpoints.run import Checkpoint, ParameterGroup, Run
from indexer.errors import CheckpointError

RUN = Run(Path("r"), "a test", tuple(Checkpoint(Path(f"r/{step}.pt"), step=step) for step in (10, 20, 30)))


def test_checkpoints_are_taken_by_step_in_training_order() -> None:
    assert [checkpoint.name for checkpoint in RUN.at([30, 10]).checkpoints] == ["10.pt", "30.pt"]


def test_a_step_without_a_checkpoint_is_refused() -> None:
    with pytest.raises(CheckpointError, match="'r' has no checkpoint at step 15; it has 10, 20, 30"):
        RUN.at([10, 15])


def test_a_run_that_notes_no_steps_says_so() -> None:
    run = Run(Path("r"), "a test", (Checkpoint(Path("r/a.pt")),))
    with pytest.raises(CheckpointError, match="has no checkpoint at step 1; it has none: the run notes no steps"):
        run.at([1])


def test_a_checkpoint_is_named_for_messages() -> None:
    assert RUN.where(1) == "checkpoint 2 of 3 ('20.pt')"


def test_the_size_of_a_group_is_known_by_names_or_by_shapes() -> None:
    assert ParameterGroup(names=("a", "b")).size == ParameterGroup(shapes=((2,), None)).size == 2
