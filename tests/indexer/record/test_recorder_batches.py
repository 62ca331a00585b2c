"""Which batches are a step, and what becomes of their losses."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from indexer import CheckpointRecorder
from indexer.checkpoints.folder import open_run
from indexer.errors import RecordError
from tests.indexer.record.training import batch_loss, network, two_groups

NORM = 1e-6  # relative: float32 norms against float64


def test_batches_whose_gradients_accumulate_are_one_step(tmp_path: Path) -> None:
    """Also the last ones, which are fewer."""
    net = network()
    optimizer = two_groups(net)
    losses = []
    with CheckpointRecorder(tmp_path, net, optimizer, steps_per_epoch=3) as recorder:
        for number in range(1, 8):
            torch.autograd.backward(loss := batch_loss(net, number))
            losses.append(loss.item())
            if number % 3 == 0 or number == 7:
                optimizer.step()
            recorder.record(loss)
    run = open_run(tmp_path)
    assert [(c.step, c.epoch) for c in run.checkpoints] == [(3, 1)]
    expected = np.array([np.mean(losses[:3]), np.mean(losses[3:6]), losses[6]])
    np.testing.assert_allclose(run.history.losses, expected, rtol=1e-12)


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_a_scaler_skips_is_none(tmp_path: Path, fused: bool) -> None:
    """A fused optimizer is called even then, and finds out itself."""
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    losses, norms = [], []
    with CheckpointRecorder(tmp_path, net, optimizer, steps_per_epoch=2) as recorder:
        for number in (1, 2, 3):
            loss = batch_loss(net, number) * (torch.inf if number == 2 else 1)
            torch.autograd.backward(scaler.scale(loss))
            if number != 2:
                norms.append(torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None]).norm() / 8)
            scaler.step(optimizer)
            scaler.update(8.0)
            optimizer.zero_grad()
            recorder.record(loss)
            losses.append(loss.item())
    found = open_run(tmp_path).history
    assert found.steps.tolist() == [1, 2]
    assert found.losses.tolist() == [losses[0], torch.inf]
    np.testing.assert_allclose(found.gradient_norms, norms, rtol=NORM)


def test_a_trainer_that_counts_skipped_steps_is_followed(tmp_path: Path) -> None:
    """They moved nothing, so their rate is zero, but the checkpoint's is that of the last step that was made."""
    net = network()
    optimizer = two_groups(net)
    recorder = CheckpointRecorder(tmp_path, net, optimizer, every=2)
    optimizer.step()
    recorder.catch_up(1)
    assert recorder.step == 1
    recorder.catch_up(2)
    recorder.record(0.5)
    run = open_run(tmp_path)
    assert run.history.learning_rates.tolist() == [[0.1, 0.03], [0, 0]]
    assert [(c.step, c.learning_rates, c.train_loss) for c in run.checkpoints] == [(2, (0.1, 0.03), 0.5)]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), torch.tensor(torch.nan)])
def test_a_loss_that_is_not_finite_breaks_no_training(tmp_path: Path, value: Any) -> None:
    net = network()
    with CheckpointRecorder(tmp_path, net, (optimizer := two_groups(net)), steps_per_epoch=2) as recorder:
        for loss in (0.5, value, 1, torch.tensor([3.0]), None, 4.0):
            optimizer.step()
            recorder.record(loss)
    run = open_run(tmp_path)
    assert [c.train_loss for c in run.checkpoints] == [None, 2.0, 4.0]
    np.testing.assert_equal(run.history.losses, [0.5, float(value), 1, 3, np.nan, 4])


def test_a_loss_is_kept_as_it_was(tmp_path: Path) -> None:
    """Though the loop uses its tensor again."""
    net = network()
    optimizer, loss = two_groups(net), torch.tensor(2.0)
    with CheckpointRecorder(tmp_path, net, optimizer, steps_per_epoch=1) as recorder:
        optimizer.step()
        recorder.note(loss)
        loss.zero_()
    assert open_run(tmp_path).history.losses.tolist() == [2.0]


def test_a_loss_of_many_numbers_is_refused(tmp_path: Path) -> None:
    net = network()
    with CheckpointRecorder(tmp_path, net, two_groups(net), every=1) as recorder:
        with pytest.raises(
            RecordError, match=r"expects the loss of the batch, one number; found .* shape \(5,\)\. Giv"
        ):
            recorder.record(torch.zeros(5))
