"""Runs of Lightning whose files hold averages of weights, and no weights that were trained."""

from pathlib import Path

import pytest
import torch

from indexer.checkpoints.folder import open_run
from indexer.checkpoints.formats.lightning_file import SWA
from tests.runs import lightning_run

pytestmark = [
    pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:`isinstance\\(treespec, LeafSpec\\)` is deprecated"),
]


@pytest.fixture
def last(tmp_path: Path) -> Path:
    """The last file of a run of two epochs of five steps."""
    lightning_run(tmp_path, metrics=None, every_n_train_steps=5)
    return tmp_path / "checkpoints/epoch=1-step=10.ckpt"


def test_a_moving_average_of_weights_is_said(last: Path, tmp_path: Path) -> None:
    document = torch.load(last, weights_only=True)
    torch.save({**document, "current_model_state": document["state_dict"]}, last)
    [caveat] = open_run(tmp_path).caveats
    assert caveat.startswith("the weights are a moving average (WeightAveraging) of those that were trained, at which")


def test_the_average_that_swa_ends_with_is_said_and_its_step_is_none_of_an_epoch(last: Path, tmp_path: Path) -> None:
    """One more epoch renews the running statistics, with one step that has no gradient."""
    document = torch.load(last, weights_only=True)
    fit = document["loops"]["fit_loop"]
    fit["epoch_progress"]["current"] = dict.fromkeys(("ready", "started", "processed"), 3)
    fit["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]["step"]["total"]["completed"] = 11
    average = {"n_averaged": 2, "average_model_state": document["state_dict"]}
    torch.save({**document, "global_step": 11, "callbacks": {SWA: average}}, last.with_name("last.ckpt"))
    found = open_run(tmp_path)
    assert [checkpoint.step for checkpoint in found.checkpoints] == [5, 10, 11]
    assert found.steps_per_epoch == 5
    assert found.caveats == (
        f"the weights of 'last.ckpt' are averaged ({SWA}): no step of the training was taken at them",
    )
