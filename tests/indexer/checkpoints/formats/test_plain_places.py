"""Which files of a script of one's own are checkpoints, and where each comes: repeated, bare, or before any step."""

import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from indexer.checkpoints.folder import open_run
from indexer.errors import CheckpointError
from tests.runs import halving, names, network, saved

STATES = [{"weight": torch.full((2,), float(value))} for value in range(4)]


def epochs(key: str = "epoch") -> dict[str, dict[str, Any]]:
    return {f"epoch{epoch}": {"model": state, key: epoch} for epoch, state in enumerate(STATES)}


@pytest.mark.parametrize("key", ["epoch", "step"])
def test_a_file_that_repeats_another_is_left_out(key: str, tmp_path: Path) -> None:
    files = epochs(key)
    found = saved(tmp_path, **files, zbest=files["epoch2"], zlast=files["epoch3"])
    assert names(found) == ["epoch0", "epoch1", "epoch2", "epoch3"]


def test_of_two_that_repeat_each_other_that_with_an_optimizer_is_kept(tmp_path: Path) -> None:
    optimizer = torch.optim.SGD(network().parameters(), 0.1).state_dict()
    found = saved(
        tmp_path, best={"model": STATES[0], "epoch": 0}, z={"model": STATES[0], "epoch": 0, "optim": optimizer}
    )
    assert names(found) == ["z"]


def test_two_files_of_one_step_with_other_weights_are_refused(tmp_path: Path) -> None:
    expected = (
        r"'a\.pt' and 'best\.pt' in .* are both of step 7 and have different weights; move one of them away, or list "
        r"those to use in checkpoints\.json"
    )
    with pytest.raises(CheckpointError, match=expected):
        saved(tmp_path, a={"model": STATES[0], "step": 7}, best={"model": STATES[1], "step": 7})


def test_a_bare_state_that_repeats_a_file_is_left_out(tmp_path: Path) -> None:
    assert names(saved(tmp_path, best_model=STATES[2], **epochs())) == ["epoch0", "epoch1", "epoch2", "epoch3"]


def test_a_bare_state_of_no_known_place_is_refused(tmp_path: Path) -> None:
    expected = (
        r"'best_model\.pt' in .* is a bare state dict: it says no step or epoch, as the other files do, and has the "
        r"weights of none of them; move it away, or list the files to use, in training order, in checkpoints\.json"
    )
    with pytest.raises(CheckpointError, match=expected):
        saved(tmp_path, best_model={"weight": torch.full((2,), 9.0)}, **epochs())


def test_files_of_an_optimizers_state_are_left_out(tmp_path: Path) -> None:
    state = torch.optim.SGD(network().parameters(), 0.1).state_dict()
    with pytest.raises(
        CheckpointError, match=r"holds the states of optimizers and no weights; save `model\.state_dict"
    ):
        saved(tmp_path, optimizer_0=state)
    assert names(saved(tmp_path, model_0=STATES[0], model_1=STATES[1], optimizer_1=state)) == ["model_0", "model_1"]


def test_an_archive_is_passed_over(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "data.tar", "w") as archive:
        archive.add(__file__)
    torch.save(STATES[0], tmp_path / "model.pth.tar")
    assert [checkpoint.name for checkpoint in open_run(tmp_path).checkpoints] == ["model.pth.tar"]


def test_averaged_weights_are_said(tmp_path: Path) -> None:
    averaged = {"module.weight": torch.ones(2), "n_averaged": torch.tensor(3)}
    assert saved(tmp_path, a=averaged, b={"model": averaged}, c=STATES[0]).caveats == (
        "the weights of 'a.pt', 'b.pt' are averaged (AveragedModel): no step of the training was taken at them",
    )


@pytest.mark.parametrize("scheduled", [True, False])
def test_a_file_from_before_the_first_step_does_not_hide_what_the_others_note(scheduled: bool, tmp_path: Path) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    scheduler = halving(optimizer) if scheduled else None
    parts: dict[str, Any] = {"model": model, "optimizer": optimizer} | ({"scheduler": scheduler} if scheduler else {})
    for step in range(7):
        if step % 3 == 0:
            document = {key: part.state_dict() for key, part in parts.items()}
            torch.save({**document, "step": step, "epoch": step // 3, "loss": 9.0 - step}, tmp_path / f"{step}.pt")
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
    with_it = open_run(tmp_path)
    assert names(with_it) == ["0", "3", "6"] and with_it.steps_per_epoch == 3
    (tmp_path / "0.pt").unlink()
    without = open_run(tmp_path)
    assert with_it.checkpoints[1:] == without.checkpoints and with_it.caveats == without.caveats
    steps = range(1, 8)
    assert with_it.history.rates(steps).tolist() == without.history.rates(steps).tolist()
    for losses in (with_it.history.losses, without.history.losses):
        assert losses[np.isfinite(losses)].tolist() == [6.0, 3.0]
