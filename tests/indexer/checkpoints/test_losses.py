"""Which losses of a run count, and where they end."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from indexer.checkpoints.history import history
from indexer.checkpoints.losses import Losses, losses_of
from indexer.checkpoints.run import Checkpoint, Run
from indexer.errors import ChoiceError
from tests.indexer.checkpoints.curves import run_of, short

NAN, INF = float("nan"), float("inf")
ADVICE = (
    r"Log the loss of every step \(a Trainer with logging_steps=1; Lightning with a CSVLogger and "
    r"log_every_n_steps=1\), record the run with indexer\.CheckpointRecorder, or name the checkpoints with `--steps`"
)


def test_single_losses_that_are_not_finite_are_dropped() -> None:
    found = losses_of(short(3.0, NAN, 2.0, INF, 1.0))
    assert (found.steps.tolist(), found.values.tolist(), found.broken) == ([1, 3, 5], [3.0, 2.0, 1.0], None)


@pytest.mark.parametrize(
    ("losses", "broken"),
    [
        ([3.0, 2.0, 1.0], None),
        ([3.0, 2.0, NAN], None),  # one step without a loss may be one that was not noted
        ([3.0, 2.0, INF], 3),
        ([3.0, 2.0, NAN, NAN], 3),
        ([3.0, NAN, 2.0, NAN, NAN], None),  # every second step was noted
        ([3.0, NAN, 2.0, NAN, NAN, NAN], 4),
        ([NAN, NAN, 3.0, 2.0, NAN, NAN, NAN], None),
    ],
)
def test_from_where_on_no_loss_is_finite(losses: list[float], broken: int | None) -> None:
    assert losses_of(short(*losses)).broken == broken


def test_without_a_history_the_losses_of_the_checkpoints_count() -> None:
    entries = [(30, 1.0), (10, 3.0), (None, 9.0), (20, None)]
    run = Run(
        Path("r"), "made", tuple(Checkpoint(Path(f"{i}.pt"), step=s, train_loss=v) for i, (s, v) in enumerate(entries))
    )
    for noted in (history([]), history([1, 2], [[0.1], [0.1]])):
        found = losses_of(replace(run, history=noted))
        assert (found.steps.tolist(), found.values.tolist()) == ([10, 30], [3.0, 1.0])


def test_a_run_without_losses_is_refused() -> None:
    with pytest.raises(ChoiceError, match=rf"'runs/made' notes no losses; expected losses that fall, .*{ADVICE}"):
        losses_of(run_of([], [1, 2]))
    with pytest.raises(ChoiceError, match=r"'runs/made' notes no losses"):
        losses_of(short(NAN, NAN))
    with pytest.raises(ChoiceError, match=rf"'runs/made' has 2 losses, none of them finite; .*{ADVICE}"):
        losses_of(short(INF, NAN))


def test_the_loss_about_a_step() -> None:
    few = Losses(np.array([10, 20, 30]), np.array([3.0, 1e6, 1.0]), None)
    assert few.near(np.array([1.0, 10.0, 11.0, 30.0, 99.0])).tolist() == [3.0, 3.0, 1e6, 1.0, 1.0]
    assert np.isnan(few.near(np.array([np.nan]))).all()


def test_of_dense_losses_a_bad_batch_is_forgotten_and_a_spike_is_not() -> None:
    values = np.arange(300.0, 0.0, -1.0)
    values[99] = 1e6
    values[198:202] = 1e6
    dense = Losses(np.arange(1, 301), values, None)
    assert dense.near(np.array([100.0, 200.0, 1.0])).tolist() == [202.0, 1e6, 299.0]
