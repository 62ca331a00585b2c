"""One file of Lightning: its place in the training, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch

from indexer.checkpoints.formats.lightning_file import SWA, VERSION, is_lightning, read_file, same_weights
from indexer.errors import CheckpointError
from tests.indexer.checkpoints.test_weights import Trap

OPTIMIZER = {"state": {}, "param_groups": [{"lr": 0.1, "params": [0]}]}


def loops(**changes: Any) -> dict[str, Any]:
    fit = {
        "epoch_progress": {"current": {"ready": 3, "processed": 2}},
        "epoch_loop.state_dict": {"_batches_that_stepped": 12},
        "epoch_loop.batch_progress": {"is_last_batch": False},
        "epoch_loop.automatic_optimization.optim_progress": {
            "optimizer": {"step": {"total": {"completed": 12}, "current": {"completed": 2}}}
        },
        **changes,
    }
    return {"fit_loop": fit}


def saved(folder: Path, **changes: Any) -> Path:
    document = {VERSION: "2.6.6", "epoch": 2, "global_step": 12, "state_dict": {"w": torch.ones(1)}, "loops": loops()}
    document |= {"optimizer_states": [OPTIMIZER], "lr_schedulers": [], **changes}
    torch.save({key: value for key, value in document.items() if value is not None}, folder / "a.ckpt")
    return folder / "a.ckpt"


def test_a_file_within_an_epoch(tmp_path: Path) -> None:
    found = read_file(saved(tmp_path))
    assert (found.step, found.epochs, found.finished, found.batches) == (12, 2, 10, 12)
    assert found.optimizer == OPTIMIZER and found.schedulers == []


def test_a_file_at_the_end_of_an_epoch(tmp_path: Path) -> None:
    at_end = loops(**{"epoch_loop.batch_progress": {"is_last_batch": True}})
    found = read_file(saved(tmp_path, loops=at_end, optimizer_states=None, lr_schedulers=None))
    assert (found.epochs, found.finished) == (3, 12)
    assert found.optimizer is None and found.schedulers is None


def test_steps_by_hand_are_counted_too(tmp_path: Path) -> None:
    by_hand = {
        "epoch_loop.automatic_optimization.optim_progress": {"optimizer": {"step": {"total": {"completed": 0}}}},
        "epoch_loop.manual_optimization.optim_step_progress": {
            "total": {"completed": 12},
            "current": {"completed": 4},
        },
    }
    assert read_file(saved(tmp_path, loops=loops(**by_hand))).finished == 8


@pytest.mark.parametrize("broken", [None, [], {"fit_loop": 7}, {"fit_loop": {"epoch_progress": {"current": []}}}])
def test_a_file_without_loops_says_no_epoch(broken: Any, tmp_path: Path) -> None:
    found = read_file(saved(tmp_path, loops=broken))
    assert (found.step, found.epochs, found.finished, found.batches) == (12, None, None, None)


@pytest.mark.parametrize(
    "changes", [{VERSION: None}, {"global_step": None}, {"global_step": -1}, {"global_step": 10**12}, {"state_dict": 7}]
)
def test_what_is_not_lightnings_is_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    expected = (
        r"checkpoint 'a\.ckpt' in .*: expected Lightning's global_step and state_dict; move files of another kind"
    )
    with pytest.raises(CheckpointError, match=expected):
        read_file(saved(tmp_path, **changes))


def test_several_optimizers_are_refused(tmp_path: Path) -> None:
    expected = r"checkpoint 'a\.ckpt' in .* has 2 optimizers, expected one: no step of the whole model has one learning"
    with pytest.raises(CheckpointError, match=expected):
        read_file(saved(tmp_path, optimizer_states=[OPTIMIZER] * 2))


def test_is_lightning(tmp_path: Path) -> None:
    assert is_lightning(saved(tmp_path))
    torch.save({"state_dict": {}}, tmp_path / "a.ckpt")
    assert not is_lightning(tmp_path / "a.ckpt")


def test_objects_in_a_file_are_not_made_and_the_way_out_is_told(tmp_path: Path) -> None:
    path = saved(tmp_path, hyper_parameters={"model": Trap(tmp_path / "witness")})
    expected = (
        r"a\.ckpt' cannot be read as weights only; a \.ckpt of Lightning holds more where hyper-parameters or "
        r"callbacks are objects\. Where you trust it, convert it once: `d = torch\.load\(path, weights_only=False\);"
    )
    for read in (read_file, is_lightning):
        with pytest.raises(CheckpointError, match=expected):
            read(path)
    assert not (tmp_path / "witness").exists()


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path)
    data = path.read_bytes()
    for cut in (0, 10, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:cut])
        with pytest.raises(CheckpointError, match="cannot be read as weights only"):
            read_file(path)


def test_the_advice_works(tmp_path: Path) -> None:
    """Its two statements, run on a file with an object that weights_only refuses."""
    path, new_path = saved(tmp_path, hyper_parameters={"path": tmp_path}), tmp_path / "b.ckpt"
    with pytest.raises(CheckpointError) as refused:
        read_file(path)
    [program] = str(refused.value).split("`")[1:2]
    exec(program, {"torch": torch, "path": path, "new_path": new_path})
    assert read_file(new_path).finished == 10


def test_averaged_weights_are_seen(tmp_path: Path) -> None:
    assert not read_file(saved(tmp_path)).averaged
    assert read_file(saved(tmp_path, current_model_state={"w": torch.zeros(1)})).averaged


@pytest.mark.parametrize(
    ("average", "expected"),
    [
        ({"n_averaged": 2, "average_model_state": {"w": torch.ones(1), "bn.running_var": torch.zeros(1)}}, True),
        ({"n_averaged": 2, "average_model_state": {"w": torch.zeros(1)}}, False),
        ({"n_averaged": torch.ones(2), "average_model_state": {"w": torch.ones(1)}}, False),
        ({"n_averaged": 2, "average_model_state": {7: 7}}, False),
        ({"n_averaged": 0, "average_model_state": {"w": torch.ones(1)}}, False),
        (7, False),
    ],
)
def test_the_average_of_swa_is_seen(average: Any, expected: bool, tmp_path: Path) -> None:
    assert read_file(saved(tmp_path, callbacks={SWA: average})).swa == expected


def test_running_statistics_are_no_weights(tmp_path: Path) -> None:
    """They change with each batch of one step: two files of it may differ in them."""
    statistics = ("bn.running_mean", "running_var", "bn.num_batches_tracked")
    one, two = ({"w": torch.ones(1), **dict.fromkeys(statistics, torch.full((1,), value))} for value in (1.0, 2.0))
    moved = saved(tmp_path, state_dict=one).rename(tmp_path / "b.ckpt")
    assert same_weights(moved, saved(tmp_path, state_dict=two))
    assert not same_weights(moved, saved(tmp_path, state_dict=two | {"not_running_mean": torch.ones(1)}))


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ({"w": torch.tensor([1.0, float("nan")]), "n": 3}, True),
        ({"w": torch.tensor([1.5, float("nan")]), "n": 3}, False),
        ({"w": torch.tensor([1.0, 2.0]), "n": 3}, False),
        ({"w": torch.ones(1), "n": 3}, False),
        ({"w": torch.ones(2).half(), "n": 3}, False),
        ({"w": torch.ones(2)}, False),
        ({"w": torch.tensor([1.0, float("nan")]), "n": torch.ones(1)}, False),
    ],
)
def test_files_of_the_same_weights(other: dict[str, Any], expected: bool, tmp_path: Path) -> None:
    path = saved(tmp_path, state_dict={"w": torch.tensor([1.0, float("nan")]), "n": 3})
    moved = path.rename(tmp_path / "b.ckpt")
    assert same_weights(moved, saved(tmp_path, state_dict=other, epoch=7)) == expected
