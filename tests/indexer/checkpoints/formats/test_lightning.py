"""Runs of Lightning: the rates that its optimizer used, step by step, whatever the schedule's interval."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

from indexer.checkpoints.eta import approximate
from indexer.checkpoints.folder import open_run
from indexer.checkpoints.optimizer import Optimizer
from indexer.errors import CheckpointError
from tests.runs import LIGHTNING_WARNS, Rates, assert_as_seen, halving, lightning_run, to_zero

pytestmark = LIGHTNING_WARNS
Made = tuple[Path, list[Rates]]


def falling(optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
    """A function, which no state keeps."""
    return lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))


def restarts(optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
    """A cosine that starts again after 4 and after 12 steps."""
    return lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 4, 2)


KINDS: dict[str, dict[str, Any]] = {
    "linear": {},
    "linear, no metrics": {"metrics": None},
    "linear, few metrics": {"metrics": 4},
    "by epoch": {"schedule": halving, "interval": "epoch"},
    "by epoch, no metrics": {"schedule": halving, "interval": "epoch", "metrics": None},
    "by epoch, at its end": {"schedule": halving, "interval": "epoch", "metrics": None, "every_n_train_steps": None},
    "constant": {"schedule": None},
    "constant, no metrics": {"schedule": None, "metrics": None},
    "a function": {"schedule": falling},
    "a function by epoch": {"schedule": falling, "interval": "epoch", "metrics": 5},
    "restarts": {"schedule": restarts, "metrics": None},
    "weights only": {"save_weights_only": True, "save_last": True},
    "a function, no metrics": {"schedule": falling, "metrics": None, "save_last": True},
}
EXACT = [kind for kind in KINDS if kind != "a function, no metrics"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Made]:
    """Return a function that gives the folder of a kind of run, and the rates that it used; each is made once."""
    made: dict[str, Made] = {}

    def find(kind: str) -> Made:
        if kind not in made:
            folder = tmp_path_factory.mktemp("lightning") / "run"
            made[kind] = folder, lightning_run(folder, **KINDS[kind])
        return made[kind]

    return find


@pytest.fixture
def copied(runs: Callable[[str], Made], tmp_path: Path) -> Callable[[str], Made]:
    """The same, to be changed."""
    return lambda kind: (Path(shutil.copytree(runs(kind)[0], tmp_path / "run", symlinks=True)), runs(kind)[1])


@pytest.mark.parametrize("kind", EXACT)
def test_rates_are_those_that_the_optimizer_used(kind: str, runs: Callable[[str], Made]) -> None:
    folder, seen = runs(kind)
    found = open_run(folder)
    assert_as_seen(found, seen)
    assert approximate(found, "learning_rate") is None
    assert (approximate(found, "interval") is None) == (kind != "constant, no metrics")
    assert found.caveats == ()


def test_what_else_is_known_of_a_run(runs: Callable[[str], Made]) -> None:
    folder, _ = runs("linear")
    found = open_run(folder)
    assert found.kind == "a run of Lightning"
    assert found.optimizer == Optimizer("sgd", {"momentum": 0.9, "nesterov": False, "weight_decay": 0})
    assert [group.shapes for group in found.groups] == [((4, 3), (4,)), ((2, 4), (2,))]
    assert [(checkpoint.name, checkpoint.step, checkpoint.epoch) for checkpoint in found.checkpoints] == [
        ("epoch=0-step=3.ckpt", 3, 0.6),
        ("epoch=1-step=6.ckpt", 6, 1.2),
        ("epoch=1-step=9.ckpt", 9, 1.8),
    ]
    assert all(checkpoint.optimizer_state == checkpoint.path for checkpoint in found.checkpoints)
    assert [checkpoint.train_loss for checkpoint in found.checkpoints] == found.history.losses[[2, 5, 8]].tolist()
    assert (found.history.gradient_norms[:10] > 0).all()


def test_a_function_without_metrics_is_known_only_around_checkpoints(runs: Callable[[str], Made]) -> None:
    folder, seen = runs("a function, no metrics")
    found = open_run(folder)
    told = [checkpoint.rates_from for checkpoint in found.checkpoints]
    assert told == [
        "the rate of the next step, as the optimizer was saved",
        "interpolated between the steps 4 and 7",
        "interpolated between the steps 7 and 10",
    ]
    assert found.checkpoints[0].learning_rates == seen[3]
    assert found.history.rates([4, 7, 10]).tolist() == [list(seen[step - 1]) for step in (4, 7, 10)]
    assert found.history.noted(range(1, 11)).tolist() == [step in (4, 7, 10) for step in range(1, 11)]


def test_a_schedule_with_one_checkpoint_is_replayed_and_said_to_be(copied: Callable[[str], Made]) -> None:
    folder, seen = copied("linear, no metrics")
    for step in (3, 6):
        (folder / f"checkpoints/epoch={step // 5}-step={step}.ckpt").unlink()
    found = open_run(folder)
    assert_as_seen(found, seen)
    assert found.caveats == (
        "the learning rates between the steps that were saved are those of the saved schedule, replayed",
    )


def test_rows_by_epoch_agree_with_a_checkpoint_between_them(copied: Callable[[str], Made]) -> None:
    """The monitor writes the first step of an epoch, and a file is saved before the scheduler steps at its end."""
    folder, seen = copied("a function by epoch")
    metrics = folder / "lightning_logs/version_0/metrics.csv"
    head, *rows = metrics.read_text().splitlines()
    place, step = head.split(",").index("lr-SGD/pg1"), head.split(",").index("step")
    first = rows[0].split(",")
    assert first[place]
    by_epoch = [[*first], [*first]]
    for row, at in zip(by_epoch, (0, 5), strict=True):
        row[step] = str(at)
        row[place : place + 2] = [str(rate) for rate in seen[at]]
    metrics.write_text("\n".join([head, *(",".join(row) for row in by_epoch)]))
    path = folder / "lightning_logs/version_0/checkpoints/epoch=0-step=3.ckpt"
    document = torch.load(path, weights_only=True)
    loops = document["loops"]
    loops["fit_loop"]["epoch_loop.state_dict"]["_batches_that_stepped"] = 5
    edit(path, global_step=5, loops=loops)
    found = open_run(folder)
    assert found.caveats == ()
    assert found.checkpoints[0].learning_rates == seen[4]


def test_two_files_of_one_step_with_other_weights_are_refused(copied: Callable[[str], Made]) -> None:
    """As a second training leaves them in the folder of a first one."""
    folder, _ = copied("linear, no metrics")
    path = folder / "checkpoints/epoch=0-step=3.ckpt"
    other = Path(shutil.copy(path, path.with_stem("epoch=0-step=3-v1")))
    assert [checkpoint.step for checkpoint in open_run(folder).checkpoints] == [3, 6, 9]
    weights = torch.load(path, weights_only=True)["state_dict"]
    edit(other, state_dict={name: weight + 1 for name, weight in weights.items()})
    expected = (
        r"'epoch=0-step=3-v1\.ckpt' and 'epoch=0-step=3\.ckpt' in .* are both of step 3 and have different weights: "
        "they may be of two trainings; move the files of the other one away"
    )
    with pytest.raises(CheckpointError, match=expected):
        open_run(folder)


def test_weights_alone_have_the_rates_of_the_metrics(runs: Callable[[str], Made]) -> None:
    found = open_run(runs("weights only")[0])
    assert found.groups == () and found.optimizer is None
    assert [checkpoint.optimizer_state for checkpoint in found.checkpoints] == [None] * 3


def test_a_second_file_of_a_step_and_links_are_dropped(copied: Callable[[str], Made]) -> None:
    folder, _ = copied("a function, no metrics")
    checkpoints = folder / "checkpoints"
    assert (checkpoints / "last.ckpt").is_file()
    (checkpoints / "best.ckpt").symlink_to("epoch=0-step=3.ckpt")
    names = [checkpoint.name for checkpoint in open_run(folder).checkpoints]
    assert names == ["epoch=0-step=3.ckpt", "epoch=1-step=6.ckpt", "epoch=1-step=9.ckpt"]
    (checkpoints / "epoch=1-step=9.ckpt").unlink()
    assert open_run(checkpoints).checkpoints[2].name == "last.ckpt"


def test_links_to_files_elsewhere_are_followed(runs: Callable[[str], Made], tmp_path: Path) -> None:
    for path in (runs("linear, no metrics")[0] / "checkpoints").glob("*.ckpt"):
        (tmp_path / path.name).symlink_to(path)
    assert_as_seen(open_run(tmp_path), runs("linear, no metrics")[1])


@pytest.mark.parametrize(
    "below", ["", "lightning_logs", "lightning_logs/version_0", "lightning_logs/version_0/checkpoints"]
)
def test_a_run_is_found_from_any_of_its_folders(below: str, runs: Callable[[str], Made]) -> None:
    folder, seen = runs("a function")  # whose rates only the metrics tell
    assert_as_seen(open_run(folder / below), seen)


def test_files_elsewhere_go_with_the_one_version_below_them(copied: Callable[[str], Made]) -> None:
    folder, seen = copied("a function")
    for path in (folder / "lightning_logs/version_0/checkpoints").iterdir():
        path.rename(folder / path.name)
    assert_as_seen(open_run(folder), seen)


def test_several_runs_are_listed(copied: Callable[[str], Made]) -> None:
    folder, _ = copied("linear")
    shutil.copytree(folder / "lightning_logs/version_0", folder / "lightning_logs/version_1")
    (folder / "lightning_logs/version_2/checkpoints").mkdir(parents=True)
    expected = (
        "holds 2 runs of Lightning: 'lightning_logs/version_0', 'lightning_logs/version_1'; give one of them, or, "
        "where one goes on with another's training, move the files of both into one folder$"
    )
    with pytest.raises(CheckpointError, match=expected):
        open_run(folder)


def test_a_folder_of_parts_is_refused(tmp_path: Path) -> None:
    (tmp_path / "last.ckpt").mkdir()
    with pytest.raises(
        CheckpointError, match=r"last\.ckpt' is a folder with parts of a checkpoint; make one file of it"
    ):
        open_run(tmp_path)


def edit(path: Path, **changes: Any) -> None:
    document = torch.load(path, weights_only=True)
    torch.save({**document, **changes}, path)


def test_metrics_of_another_run_are_left_out(copied: Callable[[str], Made]) -> None:
    folder, seen = copied("linear")
    metrics = folder / "lightning_logs/version_0/metrics.csv"
    metrics.write_text(metrics.read_text().replace("0.07,", "0.7,"))
    found = open_run(folder)
    assert_as_seen(found, seen)
    assert found.caveats == ("metrics.csv has other learning rates than the checkpoints; its are left out",)
    assert found.checkpoints[0].train_loss is not None


def test_metrics_that_count_batches_are_left_out(copied: Callable[[str], Made]) -> None:
    folder, seen = copied("linear")
    path = folder / "lightning_logs/version_0/checkpoints/epoch=0-step=3.ckpt"
    loops = torch.load(path, weights_only=True)["loops"]
    loops["fit_loop"]["epoch_loop.state_dict"]["_batches_that_stepped"] = 6
    edit(path, loops=loops)
    found = open_run(folder)
    assert_as_seen(found, seen)
    assert found.caveats == ("metrics.csv counts other steps than the optimizer's, and is left out",)


def test_one_checkpoint_without_a_scheduler_does_not_speak_for_the_steps_before(copied: Callable[[str], Made]) -> None:
    folder, seen = copied("constant, no metrics")
    for step in (3, 6):
        (folder / f"checkpoints/epoch={step // 5}-step={step}.ckpt").unlink()
    found = open_run(folder)
    assert found.checkpoints[0].learning_rates == seen[8]
    assert approximate(found, "interval") == (
        "eta: the rates of 8 of 9 steps were not noted: 8 before step 9, the first noted, are taken as its, "
        "which a warm-up makes too large"
    )


def test_linear_rates_do_not_need_the_schedulers_of_every_file(copied: Callable[[str], Made]) -> None:
    """Two schedulers step in turn: which rate is whose is not known, and the saved ones are all there is."""
    folder, seen = copied("linear, no metrics")
    for path in (folder / "checkpoints").glob("*.ckpt"):
        states = torch.load(path, weights_only=True)["lr_schedulers"]
        edit(path, lr_schedulers=states * 2)
    found = open_run(folder)
    assert [checkpoint.learning_rates for checkpoint in found.checkpoints] == [seen[3], seen[6], seen[9]]
    assert {checkpoint.rates_from for checkpoint in found.checkpoints} == {
        "the rate of the next step, as the optimizer was saved"
    }
    assert not found.history.learning_rates.size


def test_rates_of_groups_that_came_later_are_not_known(copied: Callable[[str], Made]) -> None:
    folder, _ = copied("linear")
    path = folder / "lightning_logs/version_0/checkpoints/epoch=0-step=3.ckpt"
    [state] = torch.load(path, weights_only=True)["optimizer_states"]
    edit(path, optimizer_states=[{**state, "param_groups": state["param_groups"][:1]}])
    found = open_run(folder)
    assert found.caveats == ("the optimizer got parameter groups while it trained: their rates are not known",)
    assert {checkpoint.learning_rates for checkpoint in found.checkpoints} == {()}


def test_the_last_rate_of_a_decay_to_zero_is_not_zero(tmp_path: Path) -> None:
    seen = lightning_run(tmp_path, schedule=to_zero, metrics=None, every_n_train_steps=5)
    found = open_run(tmp_path)
    assert_as_seen(found, seen)
    saved = torch.load(found.checkpoints[-1].path, weights_only=True)["optimizer_states"][0]["param_groups"]
    assert [group["lr"] for group in saved] == [0.0, 0.0]
    assert found.checkpoints[-1].learning_rates == pytest.approx((0.01, 0.002))
