"""Folders of Hugging Face's Trainer: the rates that its optimizer used, step by step, and what is refused."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch.optim import lr_scheduler

from indexer.checkpoints.eta import approximate, etas
from indexer.checkpoints.folder import open_run
from indexer.checkpoints.formats.huggingface import trainer_checkpoints
from indexer.checkpoints.optimizer import Optimizer
from indexer.errors import CheckpointError, LearningRateError
from tests.indexer.checkpoints.test_weights import Trap
from tests.runs import Rates, assert_as_seen, halving, one_group, to_zero, trainer_run

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:transformers"),
    pytest.mark.filterwarnings("ignore::FutureWarning:transformers"),
]
Made = tuple[Path, list[Rates]]


def different(optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
    """One group decays, the other one does not: two functions that no state keeps."""
    return lr_scheduler.LambdaLR(optimizer, [lambda step: 1 - step / 10, lambda step: 1.0])


KINDS: dict[str, dict[str, Any]] = {
    "every step": {"logging_steps": 1},
    "every second step": {"logging_steps": 2},
    "no logs": {},
    "weights only": {"logging_steps": 1, "save_only_model": True, "groups": one_group},
    "a schedule of PyTorch": {"schedule": halving},
    "different schedules": {"schedule": different, "logging_steps": 1},
    "cosine": {"lr_scheduler_type": "cosine", "logging_steps": 1, "save_steps": 5},
    "warm-up": {"warmup_steps": 4, "logging_steps": 1, "max_grad_norm": 0.0},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Made]:
    """Return a function that gives the folder of a kind of run, and the rates that it used; each is made once."""
    made: dict[str, Made] = {}

    def find(kind: str) -> Made:
        if kind not in made:
            folder = tmp_path_factory.mktemp("trainer") / "run"
            made[kind] = folder, trainer_run(folder, **KINDS[kind])
        return made[kind]

    return find


@pytest.fixture
def copied(runs: Callable[[str], Made], tmp_path: Path) -> Callable[[str], Made]:
    """The same, to be changed."""
    return lambda kind: (Path(shutil.copytree(runs(kind)[0], tmp_path / "run")), runs(kind)[1])


def rewrite_logs(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    for path in folder.glob("checkpoint-*/trainer_state.json"):
        document = json.loads(path.read_text())
        change(document)
        path.write_text(json.dumps(document))


@pytest.mark.parametrize("kind", ["every step", "every second step", "no logs", "a schedule of PyTorch", "cosine"])
def test_rates_are_those_that_the_optimizer_used(kind: str, runs: Callable[[str], Made]) -> None:
    folder, seen = runs(kind)
    found = open_run(folder)
    assert_as_seen(found, seen)
    assert found.caveats == ()
    assert (approximate(found, "interval") is None) == (kind != "no logs")


def test_what_else_is_known_of_a_run(runs: Callable[[str], Made]) -> None:
    folder, _ = runs("every step")
    found = open_run(folder)
    assert found.kind == "a folder of Hugging Face's Trainer"
    assert found.optimizer == Optimizer(
        "adamw", {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01, "amsgrad": False}
    )
    assert [group.shapes for group in found.groups] == [((4, 3), (4,)), ((2, 4), (2,))]
    log = json.loads((folder / "checkpoint-10/trainer_state.json").read_text())["log_history"]
    for checkpoint, step in zip(found.checkpoints, (2, 4, 6, 8, 10), strict=True):
        assert checkpoint.path == folder / f"checkpoint-{step}"
        assert (checkpoint.epoch, checkpoint.rates_from, checkpoint.adapter) == (step / 5, None, False)
        assert checkpoint.train_loss == log[step - 1]["loss"]
        assert checkpoint.optimizer_state == folder / f"checkpoint-{step}/optimizer.pt"
    assert found.history.gradient_norms[:10].tolist() == [entry["grad_norm"] for entry in log[:10]]


def test_a_rate_between_noted_steps_says_so(runs: Callable[[str], Made]) -> None:
    found = open_run(runs("no logs")[0])
    told = [checkpoint.rates_from for checkpoint in found.checkpoints]
    assert told[:2] == ["interpolated between the steps 1 and 3", "interpolated between the steps 3 and 5"]
    assert [checkpoint.train_loss for checkpoint in found.checkpoints] == [None] * 5
    assert approximate(found, "interval") == (
        "eta: the rates of 5 of 10 steps were not noted: 5 between noted steps are interpolated"
    )


def test_nothing_is_extended_to_the_start_where_there_was_a_warm_up(runs: Callable[[str], Made]) -> None:
    folder, seen = runs("warm-up")
    assert_as_seen(open_run(folder), seen)
    assert seen[0] == (0.0, 0.0)


@pytest.mark.parametrize("kind", ["every step", "every second step", "cosine"])
def test_older_logs_have_the_next_steps_rates(kind: str, copied: Callable[[str], Made]) -> None:
    folder, seen = copied(kind)

    def to_next(document: dict[str, Any]) -> None:
        for entry in document["log_history"]:
            if "learning_rate" in entry:
                entry["learning_rate"] = [*(rates[0] for rates in seen), 0.0][entry["step"]]

    rewrite_logs(folder, to_next)
    found = open_run(folder)
    for checkpoint in found.checkpoints:
        assert checkpoint.learning_rates == pytest.approx(seen[(checkpoint.step or 0) - 1], rel=1e-12)
    if kind != "cosine":
        assert_as_seen(found, seen)


def test_without_optimizers_rates_are_the_logged_ones(runs: Callable[[str], Made]) -> None:
    folder, seen = runs("weights only")
    found = open_run(folder)
    assert_as_seen(found, seen)
    assert found.groups == () and found.optimizer is None and found.checkpoints[0].optimizer_state is None
    assert found.caveats == (
        "no optimizer was saved: the logged learning rate, of the first parameter group, is taken for all",
        "the log's learning rates may be of the step after: older versions of Trainer logged that, and nothing tells",
    )


def test_groups_with_schedules_of_their_own_have_no_known_rates(runs: Callable[[str], Made]) -> None:
    found = open_run(runs("different schedules")[0])
    assert {checkpoint.learning_rates for checkpoint in found.checkpoints} == {()}
    assert found.caveats[0].startswith("the parameter groups follow different schedules, and Trainer logs the first")
    with pytest.raises(LearningRateError, match="has no learning_rate; write the rate of the last step before it"):
        etas(found, "learning_rate")


def test_one_checkpoint_without_logs_has_the_next_steps_rate_and_says_so(copied: Callable[[str], Made]) -> None:
    folder, seen = copied("no logs")
    for step in (2, 6, 8, 10):
        shutil.rmtree(folder / f"checkpoint-{step}")
    [checkpoint] = open_run(folder).checkpoints
    assert checkpoint.learning_rates == seen[4]
    assert checkpoint.rates_from == "the rate of the next step, as the optimizer was saved"


def test_checkpoints_come_in_the_order_of_their_steps(tmp_path: Path) -> None:
    for name in ("checkpoint-1000", "checkpoint-200", "checkpoint-best", "checkpoint-", "runs"):
        (tmp_path / name).mkdir()
    (tmp_path / "checkpoint-3").touch()
    assert [step for step, _ in trainer_checkpoints(tmp_path)] == [200, 1000]


def test_an_adapter_is_told_from_a_whole_model(copied: Callable[[str], Made]) -> None:
    folder, _ = copied("every step")
    (folder / "checkpoint-2/model.safetensors").rename(folder / "checkpoint-2/adapter_model.safetensors")
    assert [checkpoint.adapter for checkpoint in open_run(folder).checkpoints] == [True, False, False, False, False]


@pytest.mark.parametrize(("epoch", "expected"), [(10 / 5.5, 5.5), (1e-320, None)])
def test_steps_an_epoch_that_are_no_whole_number_are_approximate(
    epoch: float, expected: float | None, copied: Callable[[str], Made]
) -> None:
    folder, _ = copied("no logs")
    rewrite_logs(folder, lambda document: document.update(epoch=epoch))
    found = open_run(folder)
    assert found.steps_per_epoch == expected
    said = ("the steps an epoch are approximate: 5.5 by the log, which has no whole number of them",)
    assert found.caveats == (() if expected is None else said)


def test_an_optimizer_that_is_not_known_is_said(copied: Callable[[str], Made]) -> None:
    folder, _ = copied("every step")
    state = torch.load(folder / "checkpoint-10/optimizer.pt", weights_only=True)
    state["state"][0]["exp_avg_diff"] = torch.zeros(1)
    torch.save(state, folder / "checkpoint-10/optimizer.pt")
    found = open_run(folder)
    assert found.optimizer is None
    assert found.caveats[0].startswith("trained with an optimizer that is not known, which keeps exp_avg, exp_avg_diff")


def without(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "checkpoint-4" / name).unlink()


def written(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / "checkpoint-4" / name).write_bytes(content)


def parts(name: str) -> Callable[[Path], object]:
    return lambda folder: os.renames(folder / "checkpoint-4/model.safetensors", folder / "checkpoint-4" / name)


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "unfinished": (without("trainer_state.json"), r"checkpoint 'checkpoint-4' in .* has no trainer_state\.json; it"),
    "no JSON": (written("trainer_state.json", b'{"log_'), r"checkpoint-4/trainer_state\.json' is not JSON; remove the"),
    "not UTF-8": (written("trainer_state.json", b"\xff"), r"checkpoint-4/trainer_state\.json' is not JSON; remove the"),
    "too deep": (written("trainer_state.json", b"[" * 200_000), r"trainer_state\.json' is not JSON; remove the check"),
    "no object": (written("trainer_state.json", b"[]"), r"expected a log_history and global_step 4, as the folder is"),
    "another step": (
        written("trainer_state.json", b'{"log_history": [], "global_step": 5}'),
        r"expected a log_history and global_step 4, as the folder is named, found 5; name the folder as Trainer did",
    ),
    "no weights": (without("model.safetensors"), r"has no whole weights \(model\.safetensors, .*\); save it again, or"),
    "DeepSpeed": (parts("global_step4"), r"whole weights .*: DeepSpeed wrote parts of them; make one file with the"),
    "FSDP": (parts("pytorch_model_fsdp_0"), r"whole weights .*: FSDP wrote parts of them; save with state_dict_type"),
    "a named adapter": (parts("style/adapter_model.bin"), r"name, here 'style'; move the files of the one to use from"),
    "a truncated optimizer": (written("optimizer.pt", b"PK\x03\x04"), r"optimizer\.pt' cannot be read as weights only"),
    "another optimizer": (
        lambda folder: torch.save({"state": {}, "param_groups": [{"lr": "0.1"}]}, folder / "checkpoint-4/optimizer.pt"),
        r"optimizer state 'optimizer\.pt' is no state of an optimizer; save it again with Trainer, or remove it",
    ),
    "two of one step": (
        lambda folder: shutil.copytree(folder / "checkpoint-4", folder / "checkpoint-04"),
        r"'checkpoint-04' and 'checkpoint-4' in .* are both of step 4; move one of them away",
    ),
    "a step without end": (
        lambda folder: (folder / "checkpoint-4").rename(folder / f"checkpoint-{10**17}"),
        r"checkpoint 'checkpoint-100000000000000000' in .*: expected a step up to 10,000,000",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_refused(case: str, copied: Callable[[str], Made]) -> None:
    spoil, expected = REFUSED[case]
    folder, _ = copied("every step")
    spoil(folder)
    with pytest.raises(CheckpointError, match=expected):
        open_run(folder)


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "training_args.bin"])
def test_no_code_in_a_folder_is_run(name: str, copied: Callable[[str], Made]) -> None:
    folder, seen = copied("every step")
    torch.save(Trap(folder / "witness"), folder / "checkpoint-4" / name)
    if name == "training_args.bin":
        assert_as_seen(open_run(folder), seen)
    else:
        with pytest.raises(CheckpointError, match=f"checkpoint-4/{name}' cannot be read as weights only; save it"):
            open_run(folder)
    assert not (folder / "witness").exists()


@pytest.mark.parametrize("entry", [None, 7, {"loss": 1}, {"loss": 1, "step": -1}, {"loss": 1, "step": 10**30}])
def test_entries_of_another_form_are_passed_over(entry: Any, copied: Callable[[str], Made]) -> None:
    folder, seen = copied("every step")
    rewrite_logs(folder, lambda document: document["log_history"].append(entry))
    assert_as_seen(open_run(folder), seen)


def test_a_loss_that_diverged_is_kept(copied: Callable[[str], Made]) -> None:
    folder, seen = copied("every step")

    def diverge(document: dict[str, Any]) -> None:
        document["log_history"][0]["loss"] = float("inf")
        document["log_history"][1].update(loss=float("nan"), learning_rate=float("nan"))

    rewrite_logs(folder, diverge)
    found = open_run(folder)
    assert found.history.losses[0] == np.inf and np.isnan(found.history.losses[1])
    assert found.checkpoints[0].train_loss == np.inf
    assert_as_seen(found, seen)


def test_rates_of_groups_that_came_later_are_not_known(copied: Callable[[str], Made]) -> None:
    folder, _ = copied("every step")
    state = torch.load(folder / "checkpoint-2/optimizer.pt", weights_only=True)
    torch.save({**state, "param_groups": state["param_groups"][:1]}, folder / "checkpoint-2/optimizer.pt")
    found = open_run(folder)
    assert found.caveats == ("the optimizer got parameter groups while it trained: their learning rates are not known",)
    assert {checkpoint.learning_rates for checkpoint in found.checkpoints} == {()}


def test_linear_decay_of_pytorch_is_replayed(tmp_path: Path) -> None:
    """Its last optimizer has a rate of zero, and no log was written."""
    seen = trainer_run(tmp_path / "run", schedule=to_zero, save_steps=5)
    found = open_run(tmp_path / "run")
    assert_as_seen(found, seen)
    assert [checkpoint.rates_from for checkpoint in found.checkpoints] == [None, None]
    assert safetensors.torch.load_file(found.checkpoints[0].path / "model.safetensors").keys() == {
        *("0.weight", "0.bias", "2.weight", "2.bias"),
    }
