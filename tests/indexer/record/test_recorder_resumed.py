"""A recording that was interrupted and resumed is that of one training, to the bit."""

from pathlib import Path

import pytest

from indexer.checkpoints.eta import approximate, etas
from indexer.checkpoints.folder import open_run
from tests.indexer.record.training import STEPS, Dies, Training, files


@pytest.mark.parametrize(
    ("dies_after", "resumes_at", "flushes"),
    [
        (7, 6, ()),  # at the last checkpoint
        (8, 3, ()),  # at one before it
        (7, 5, ()),  # between two, the later of which is dropped and lends its steps
        (11, 1, ()),  # before the first
        (8, 8, (8,)),  # where the training's own state was saved, after the last
        (2, 1, (1, 2)),  # before there is any checkpoint
        (12, 12, ()),  # at the end
    ],
)
def test_a_resumed_recording_is_that_of_one_training(
    tmp_path: Path, dies_after: int, resumes_at: int, flushes: tuple[int, ...]
) -> None:
    Training().run(tmp_path / "whole", optimizer_state=True)
    first, second = Training(), Training()
    with pytest.raises(Dies):
        first.run(tmp_path / "parts", optimizer_state=True, dies_after=dies_after, flushes=flushes)
    second.restore(first.own[resumes_at])
    second.run(tmp_path / "parts", optimizer_state=True, step=resumes_at)
    whole, parts = files(tmp_path / "whole"), files(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    for name, content in whole.items():
        assert name.endswith(".pt") or parts[name] == content, name  # torch.save is not the same to the byte


@pytest.mark.parametrize(("dies_after", "resumes_at"), [(8, 6), (11, 9), (11, 10)])
def test_a_recording_may_begin_in_the_middle_of_a_training(tmp_path: Path, dies_after: int, resumes_at: int) -> None:
    """It says of what it did not see that it is not known, and is resumed as any other."""
    first, second, third = Training(), Training(), Training()
    first.run(tmp_path / "whole")
    second.restore(first.own[5])
    with pytest.raises(Dies):
        second.run(tmp_path / "late", step=5, every=4, dies_after=dies_after, flushes=(6, 10))
    third.restore(second.own[resumes_at])
    third.run(tmp_path / "late", step=resumes_at, every=4)
    run, whole = open_run(tmp_path / "late"), open_run(tmp_path / "whole").history
    assert [(c.step, c.epoch) for c in run.checkpoints] == [(8, 8 / 3), (12, 4)]
    assert run.history.steps.tolist() == list(range(6, STEPS + 1))
    assert run.history.learning_rates.tolist() == whole.learning_rates[5:].tolist()
    assert run.history.losses.tolist() == whole.losses[5:].tolist()
    assert run.checkpoints[0].train_loss == pytest.approx(whole.losses[5:8].mean())
    told = approximate(run, "interval")
    assert told is not None and "5 of 12 steps were not noted" in told
    assert approximate(run, "learning_rate") is None
    before = etas(run, "interval")[0]
    expected = (whole.learning_rates[5] * 5 + whole.learning_rates[5:8].sum(0)) / 3
    assert before == pytest.approx(expected)


def test_a_recording_can_be_resumed_again_and_again(tmp_path: Path) -> None:
    Training().run(tmp_path / "whole")
    step, own = 0, Training().own
    for dies_after, resumes_at in ((5, 4), (8, 7), (8, 5), (10, 10)):
        training = Training()
        training.restore(own[step] if step else {})
        with pytest.raises(Dies):
            training.run(tmp_path / "parts", step=step, dies_after=dies_after, flushes=(4, 7, 10))
        step, own = resumes_at, {**own, **training.own}
    training = Training()
    training.restore(own[step])
    training.run(tmp_path / "parts", step=step)
    assert files(tmp_path / "parts") == files(tmp_path / "whole")


def test_what_was_dropped_stays_listed_until_the_first_save(tmp_path: Path) -> None:
    first, second = Training(), Training()
    with pytest.raises(Dies):
        first.run(tmp_path, dies_after=10)
    second.restore(first.own[4])
    with pytest.raises(Dies):
        second.run(tmp_path, step=4, dies_after=5)
    assert [c.step for c in open_run(tmp_path).checkpoints] == [3, 6, 9]
    second = Training()
    second.restore(first.own[4])
    with pytest.raises(Dies):
        second.run(tmp_path, step=4, dies_after=6)
    assert [c.step for c in open_run(tmp_path).checkpoints] == [3, 6]
    assert (tmp_path / "step-000009.safetensors").exists()


def test_a_run_that_dies_keeps_the_listing_of_what_is_complete(tmp_path: Path) -> None:
    """And no checkpoint is made of a broken state."""
    training = Training()
    with pytest.raises(Dies):
        training.run(tmp_path, dies_after=8)
    run = open_run(tmp_path)
    assert [c.step for c in run.checkpoints] == [3, 6]
    assert run.history.steps.tolist() == [1, 2, 3, 4, 5, 6]
    before = files(tmp_path)
    training.optimizer.step()
    assert files(tmp_path) == before
