"""From a folder to its run: who wrote it is seen from its files, and what is accepted is said."""

from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

from indexer.checkpoints.folder import open_run
from indexer.checkpoints.formats.lightning_file import VERSION
from indexer.errors import CheckpointError
from tests.indexer.checkpoints.test_weights import Trap

STATE = {"weight": torch.ones(2)}
LIGHTNING = {VERSION: "2.6.6", "epoch": 1, "global_step": 5, "state_dict": STATE}


def trainer(folder: Path) -> None:
    checkpoint = folder / "checkpoint-5"
    checkpoint.mkdir()
    (checkpoint / "trainer_state.json").write_text('{"global_step": 5, "epoch": 1.0, "log_history": []}')
    safetensors.torch.save_file(STATE, checkpoint / "model.safetensors")


def lightning(folder: Path) -> None:
    (folder / "lightning_logs/version_3/checkpoints").mkdir(parents=True)
    torch.save(LIGHTNING, folder / "lightning_logs/version_3/checkpoints/a.ckpt")


def listing(folder: Path) -> None:
    torch.save(STATE, folder / "a.pt")
    (folder / "checkpoints.json").write_text('{"checkpoints": [{"file": "a.pt"}]}')


MADE: dict[str, tuple[tuple[Callable[[Path], object], ...], str]] = {
    "a listing, before anything else": ((listing, trainer, lightning), "a folder with checkpoints.json"),
    "Trainer": ((trainer,), "a folder of Hugging Face's Trainer"),
    "Trainer and its last model": (
        (trainer, lambda folder: safetensors.torch.save_file(STATE, folder / "model.safetensors")),
        "a folder of Hugging Face's Trainer",
    ),
    "Lightning": ((lightning,), "a run of Lightning"),
    "Lightning's files alone": ((lambda folder: torch.save(LIGHTNING, folder / "a.ckpt"),), "a run of Lightning"),
    "files": ((lambda folder: torch.save(STATE, folder / "a.pth"),), "a folder of checkpoint files"),
    "other .ckpt": ((lambda folder: torch.save(STATE, folder / "a.ckpt"),), "a folder of checkpoint files"),
}


@pytest.mark.parametrize("case", MADE)
def test_what_wrote_a_folder_is_seen(case: str, tmp_path: Path) -> None:
    makers, expected = MADE[case]
    for make in makers:
        make(tmp_path)
    found = open_run(tmp_path)
    assert (found.kind, len(found.checkpoints), found.folder) == (expected, 1, tmp_path)


def test_a_listing_of_the_recorder_is_read(run: Path) -> None:
    found = open_run(run)
    assert (found.kind, len(found.checkpoints)) == ("a folder with checkpoints.json", 3)


ACCEPTED = (
    r"; expected checkpoints\.json; checkpoint-N/ folders of Hugging Face's Trainer; \*\.ckpt of Lightning in it, in "
    r"checkpoints/ or in lightning_logs/version_N/checkpoints/; or \*\.pt, \*\.pth, \*\.tar, \*\.bin, \*\.safetensors$"
)


def test_what_is_accepted_is_said(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    (tmp_path / "training_args.bin").touch()
    (tmp_path / "checkpoint-x").mkdir()
    for folder, is_so in (
        (tmp_path, "has no"),
        (tmp_path / "none", "does not"),
        (tmp_path / "notes.txt", "is a file,"),
    ):
        with pytest.raises(CheckpointError, match=f"{folder.name}' {is_so} .*{ACCEPTED}"):
            open_run(folder)


@pytest.mark.parametrize("name", ["since-last-checkpoint.history.safetensors", "step-000004.history.safetensors"])
def test_a_recording_without_a_listing_has_no_checkpoint_yet(name: str, tmp_path: Path) -> None:
    safetensors.torch.save_file(STATE, tmp_path / "step-000004.safetensors")
    (tmp_path / name).touch()
    expected = r"is a recording that has no checkpoint yet: checkpoints\.json is written with the first\. Let the train"
    with pytest.raises(CheckpointError, match=expected):
        open_run(tmp_path)
    trainer(tmp_path)
    assert open_run(tmp_path).kind == "a folder of Hugging Face's Trainer"


@pytest.mark.parametrize("name", ["model.safetensors", "adapter_model.safetensors", "pytorch_model.bin.index.json"])
def test_one_checkpoint_is_no_run(name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    expected = r"is one checkpoint and no run; give the folder that its checkpoint-N/ folders are in, or list its file"
    with pytest.raises(CheckpointError, match=expected):
        open_run(tmp_path)


@pytest.mark.parametrize("name", ["a.ckpt", "a.pt", "a.bin"])
def test_no_code_is_run_to_see_what_a_folder_is(name: str, tmp_path: Path) -> None:
    torch.save(Trap(tmp_path / "witness"), tmp_path / name)
    with pytest.raises(CheckpointError, match=f"{name}' cannot be read as weights only; "):
        open_run(tmp_path)
    assert not (tmp_path / "witness").exists()
