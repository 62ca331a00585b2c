"""A recording that begins and ends with a trainer's training."""

import math
from pathlib import Path

import pytest
import torch

from indexer.checkpoints.folder import open_run
from indexer.checkpoints.weights import read_weights
from indexer.errors import RecordError
from indexer.record.callback import TrainerRecording, steps_per_epoch
from tests.indexer.record.training import network, two_groups


def test_steps_of_an_epoch() -> None:
    assert [steps_per_epoch(7, 2), steps_per_epoch(1, 4), steps_per_epoch(None, 2), steps_per_epoch(math.inf, 2)] == [
        *(4, 1, None, None)
    ]


def test_before_and_after_a_training_nothing_is_recorded(tmp_path: Path) -> None:
    recording = TrainerRecording(tmp_path / "run", every=1, optimizer_state=False)
    for use in (recording.save_if_due, recording.hold, recording.hold_if_due, recording.flush, recording.finish):
        use()
    recording.note(1.0)
    recording.count_to(3)
    recording.abandon()
    assert not (tmp_path / "run").exists()


def test_weights_that_are_held_are_those_of_their_step(tmp_path: Path) -> None:
    net = network()
    recording = TrainerRecording(tmp_path, every=2, optimizer_state=False)
    recording.begin(net, optimizer := two_groups(net), steps_per_epoch=None, step=0)
    own = []
    for _ in range(3):
        torch.autograd.backward(net(torch.ones(3)).sum())
        optimizer.step()
        recording.hold_if_due()
        own.append({name: tensor.clone() for name, tensor in net.state_dict().items()})
        if len(own) == 3:
            recording.hold()
        with torch.no_grad():
            net.get_parameter("0.weight").zero_()
        recording.hold()
        recording.note(1.0)
        recording.save_if_due()
    recording.finish()
    recording.finish()
    run = open_run(tmp_path)
    assert [(c.step, c.train_loss) for c in run.checkpoints] == [(2, 1.0), (3, 1.0)]
    for checkpoint in run.checkpoints:
        kept = own[(checkpoint.step or 0) - 1]
        assert all(tensor.equal(kept[name]) for name, tensor in read_weights(checkpoint.path).items())


def test_data_without_a_length_needs_an_interval(tmp_path: Path) -> None:
    net = network()
    with pytest.raises(
        RecordError, match=r"data has no length, .* give the steps from .*: RecordCheckpoints\('.*', every=1000\)"
    ):
        TrainerRecording(tmp_path, every=None, optimizer_state=False).begin(
            net, two_groups(net), steps_per_epoch=None, step=0
        )
