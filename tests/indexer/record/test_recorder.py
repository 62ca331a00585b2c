"""A recording says what the training did, to the bit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import torch
from torch import nn

from indexer import CheckpointRecorder
from indexer.checkpoints.eta import etas
from indexer.checkpoints.folder import open_run
from indexer.checkpoints.weights import read_weights
from indexer.errors import RecordError
from tests.indexer.record.training import (
    STEPS,
    STEPS_PER_EPOCH,
    Training,
    batch_loss,
    network,
    rates_at,
    two_groups,
)

NORM = 1e-6  # relative: float32 norms against float64


@pytest.fixture
def training() -> Training:
    return Training()


def test_a_checkpoint_an_epoch_with_what_was_used_and_lost(training: Training, tmp_path: Path) -> None:
    training.run(tmp_path)
    run = open_run(tmp_path)
    assert [c.name for c in run.checkpoints] == [f"step-0000{step:02d}.safetensors" for step in (3, 6, 9, 12)]
    assert [(c.step, c.epoch) for c in run.checkpoints] == [(3, 1), (6, 2), (9, 3), (12, 4)]
    assert [list(c.learning_rates) for c in run.checkpoints] == [training.rates[step - 1] for step in (3, 6, 9, 12)]
    assert [c.train_loss for c in run.checkpoints] == [
        pytest.approx(np.mean(training.losses[k : k + 3]), rel=1e-12) for k in (0, 3, 6, 9)
    ]
    assert [group.names for group in run.groups] == [("2.weight", "2.bias"), ("0.weight", "0.bias")]
    assert (run.steps_per_epoch, run.optimizer and run.optimizer.parameters["momentum"]) == (3, 0.9)
    for checkpoint in run.checkpoints:
        own = training.own[checkpoint.step or 0]["net"]
        assert all(tensor.equal(own[name]) for name, tensor in read_weights(checkpoint.path).items())


def test_rates_are_those_of_the_step_that_used_them(training: Training, tmp_path: Path) -> None:
    """The last step of a decay to zero has a rate, and zero, which the scheduler leaves behind, is no step's."""
    training.run(tmp_path)
    run = open_run(tmp_path)
    assert run.history.steps.tolist() == list(range(1, STEPS + 1))
    assert run.history.learning_rates.tolist() == training.rates
    assert training.rates == [pytest.approx(rates_at(step)) for step in range(1, STEPS + 1)]
    assert training.optimizer.param_groups[0]["lr"] == 0
    assert etas(run, "learning_rate")[-1] == pytest.approx(rates_at(STEPS))
    assert etas(run, "interval")[1] == pytest.approx(np.sum([rates_at(step) for step in (4, 5, 6)], axis=0) / 3)


def test_losses_and_norms_of_every_step(training: Training, tmp_path: Path) -> None:
    norms = []

    def note(*_: object) -> None:
        squares = [p.grad.double().square().sum() for p in training.net.parameters() if p.grad is not None]
        norms.append(torch.stack(squares).sum().sqrt().item())

    training.optimizer.register_step_pre_hook(note)
    training.run(tmp_path)
    found = open_run(tmp_path).history
    assert found.losses.tolist() == training.losses
    np.testing.assert_allclose(found.gradient_norms, norms, rtol=NORM)


def test_close_saves_what_is_left_and_ends_the_recording(tmp_path: Path) -> None:
    net = network()
    optimizer = two_groups(net)
    recorder = CheckpointRecorder(tmp_path, net, optimizer, every=2)
    for number in (1, 2, 3):
        torch.autograd.backward(loss := batch_loss(net, number))
        optimizer.step()
        recorder.record(loss)
    assert [c.step for c in open_run(tmp_path).checkpoints] == [2]
    recorder.close()
    recorder.close()
    assert [c.step for c in open_run(tmp_path).checkpoints] == [2, 3]
    optimizer.step()
    assert recorder.step == 3
    uses: list[Callable[[], None]] = [lambda: recorder.record(0.1), recorder.save, recorder.flush, recorder.save_if_due]
    for use in uses:
        with pytest.raises(RecordError, match=r"the recording in '.*' is closed; construct another recorder to go on"):
            use()


def test_save_at_will_under_a_name(tmp_path: Path) -> None:
    """With ``every=0`` nothing else is saved, and a step is saved once."""
    net = network()
    with CheckpointRecorder(tmp_path, net, (optimizer := two_groups(net)), every=0) as recorder:
        recorder.save("nothing-yet")
        for number in (1, 2, 3, 4):
            optimizer.step()
            recorder.record(0.1 * number)
            if number < 4:
                recorder.save(f"s{number}")
                recorder.save("again")
        for name in ("", "a/b", "../a"):
            with pytest.raises(RecordError, match=f"is called '{name}'; expected a file name without folder and suff"):
                recorder.save(name)
        with pytest.raises(
            RecordError, match=r"at step 4 is called 's2', as is the one at step 2; give each a name of"
        ):
            recorder.save("s2")
    run = open_run(tmp_path)
    assert [(c.name, c.step) for c in run.checkpoints] == [(f"s{k}.safetensors", k) for k in (1, 2, 3)]
    assert {path.name for path in tmp_path.glob("*.history.*")} == {f"s{k}.history.safetensors" for k in (1, 2, 3)}


def test_steps_without_a_record_are_saved_late_and_not_lost(tmp_path: Path) -> None:
    net = network()
    with CheckpointRecorder(tmp_path, net, (optimizer := two_groups(net)), every=2) as recorder:
        for _ in range(5):
            optimizer.step()
        recorder.record(0.5)
    run = open_run(tmp_path)
    assert [c.step for c in run.checkpoints] == [5]
    np.testing.assert_equal(run.history.losses, [np.nan] * 4 + [0.5])


def test_the_optimizers_state_has_names(tmp_path: Path) -> None:
    """Though the optimizer never heard them."""
    net = network()
    optimizer = torch.optim.Adam([{"params": net[2].parameters()}, {"params": net[0].parameters()}], lr=0.01)
    with CheckpointRecorder(tmp_path, net, optimizer, every=1, optimizer_state=True) as recorder:
        torch.autograd.backward(loss := batch_loss(net, 1))
        optimizer.step()
        recorder.record(loss)
    [checkpoint] = open_run(tmp_path).checkpoints
    assert checkpoint.optimizer_state == tmp_path / "step-000001.optimizer.pt"
    state = torch.load(checkpoint.optimizer_state, weights_only=True)
    assert [group["param_names"] for group in state["param_groups"]] == [["2.weight", "2.bias"], ["0.weight", "0.bias"]]
    for group in state["param_groups"]:
        for name, number in zip(group["param_names"], group["params"], strict=True):
            gradient = net.get_parameter(name).grad
            assert gradient is not None
            torch.testing.assert_close(state["state"][number]["exp_avg_sq"], 0.001 * gradient.square())
    assert "optimizer_state" not in orjson.loads((tmp_path / "checkpoints.json").read_bytes())


def test_one_group_has_one_rate(tmp_path: Path) -> None:
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), lr=torch.tensor(0.5))
    with CheckpointRecorder(tmp_path, net, optimizer, every=1) as recorder:
        optimizer.step()
        optimizer.param_groups[0]["lr"].fill_(0.25)
        recorder.record(1.0)
    document = orjson.loads((tmp_path / "checkpoints.json").read_bytes())
    assert document["checkpoints"] == [
        {
            "file": "step-000001.safetensors",
            "learning_rate": 0.5,
            "step": 1,
            "train_loss": 1.0,
            "history": "step-000001.history.safetensors",
        }
    ]
    assert document["parameter_groups"] == [["0.weight", "0.bias", "2.weight", "2.bias"]]


def test_only_the_first_process_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others do not even look at the folder, which the first may have begun to fill; they count all the same."""
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    for rank in (0, 1):
        monkeypatch.setattr("torch.distributed.get_rank", lambda rank=rank: rank)
        training = Training()
        training.run(tmp_path)
        assert training.counted == list(range(1, STEPS + 1))
        if rank == 0:
            before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    assert len(open_run(tmp_path).checkpoints) == STEPS / STEPS_PER_EPOCH


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            {},
            r"expected steps_per_epoch, the optimizer's steps an epoch .*, or every, the steps from checkpoint",
        ),
        ({"steps_per_epoch": 0}, "steps_per_epoch = 0: expected a whole number of steps, at least 1"),
        ({"steps_per_epoch": 3.5}, r"steps_per_epoch = 3\.5: expected a whole number of steps, at least 1"),
        ({"every": 1, "step": -3}, "step = -3: expected the number of steps that were made before, 0 in a new train"),
        ({"every": -1}, r"every = -1: expected a number of steps, or 0 to save with save\(\) alone"),
    ],
)
def test_settings_out_of_range_are_refused(tmp_path: Path, settings: dict[str, Any], expected: str) -> None:
    net = network()
    with pytest.raises(RecordError, match=expected):
        CheckpointRecorder(tmp_path, net, two_groups(net), **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"steps_per_epoch": np.ceil(5 / 2)},
        {"steps_per_epoch": np.int64(3)},
        {"steps_per_epoch": torch.tensor(3), "every": np.int64(3), "step": torch.tensor(0)},
    ],
)
def test_numbers_of_numpy_and_torch_are_written(training: Training, tmp_path: Path, settings: dict[str, Any]) -> None:
    training.optimizer.param_groups[0]["momentum"] = np.float64(0.9)
    training.run(tmp_path, **settings)
    run = open_run(tmp_path)
    assert [(c.step, c.epoch) for c in run.checkpoints] == [(3, 1), (6, 2), (9, 3), (12, 4)]
    assert run.optimizer is not None and run.optimizer.parameters["momentum"] == 0.9


def test_weights_are_held_until_the_next_step(tmp_path: Path) -> None:
    net = network()
    recorder = CheckpointRecorder(tmp_path, net, (optimizer := two_groups(net)), every=3, optimizer_state=True)
    recorder.hold()  # no step was made
    torch.autograd.backward(batch_loss(net, 1))
    for _ in (1, 2):
        optimizer.step()
        recorder.hold()
        kept = net.get_parameter("2.weight").clone()
    with torch.no_grad():
        net.get_parameter("2.weight").zero_()
    optimizer.state.clear()
    recorder.hold()
    recorder.close()
    [checkpoint] = open_run(tmp_path).checkpoints
    assert checkpoint.step == 2
    assert read_weights(checkpoint.path)["2.weight"].equal(kept)
    assert checkpoint.optimizer_state is not None
    assert len(torch.load(checkpoint.optimizer_state, weights_only=True)["state"]) == 4


def test_the_folder_may_be_new_and_a_string(tmp_path: Path) -> None:
    net = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with CheckpointRecorder(f"{tmp_path}/runs/new", net, optimizer, steps_per_epoch=2):
        optimizer.step()
    assert [c.epoch for c in open_run(tmp_path / "runs" / "new").checkpoints] == [0.5]
