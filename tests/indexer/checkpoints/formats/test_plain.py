"""Folders of files that scripts of one's own saved: their order, their rates, and how each rate is known."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch.optim import lr_scheduler

from indexer.checkpoints.eta import approximate
from indexer.checkpoints.folder import open_run
from indexer.checkpoints.formats.plain import plain_files
from indexer.errors import CheckpointError
from tests.runs import Rates, assert_as_seen, halving, names, network, saved, to_zero, two_groups, watched

STATE = {"weight": torch.ones(2)}
FROM_ONE = "from its scheduler, taken to have stepped before saving, and the file's steps to be counted from 1"
Extra = Callable[[int, int], dict[str, Any]]


def train(
    folder: Path, schedule: Callable[[torch.optim.Optimizer], Any] | None, by_epoch: bool, late: bool, extra: Extra
) -> list[Rates]:
    """Two epochs of five steps, one file an epoch; late: the scheduler steps after saving. Returns the rates used."""
    model = network()
    optimizer = torch.optim.SGD(two_groups(model), momentum=0.9)
    seen, scheduler = watched(optimizer), None if schedule is None else schedule(optimizer)
    for epoch in range(2):
        for within in range(5):
            torch.autograd.backward(model(torch.randn(4, 3)).square().mean())
            optimizer.step()
            if scheduler is not None and not late and (not by_epoch or within == 4):
                scheduler.step()
            if scheduler is not None and late and not by_epoch and within < 4:
                scheduler.step()
        document = {"model_state_dict": model.state_dict(), "optimizer_state_dict": optimizer.state_dict()}
        document |= {} if scheduler is None else {"scheduler_state_dict": scheduler.state_dict()}
        torch.save({**document, **extra(epoch, 5 * (epoch + 1))}, folder / f"epoch{epoch}.pt")
        if scheduler is not None and late:
            scheduler.step()
    return seen


def places(epoch: int, step: int) -> dict[str, Any]:
    return {"epoch": epoch, "step": step, "loss": 0.5}


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(("schedule", "by_epoch"), [(to_zero, False), (halving, False), (halving, True)])
def test_rates_are_those_that_the_optimizer_used(schedule: Any, by_epoch: bool, late: bool, tmp_path: Path) -> None:
    found_seen = train(tmp_path, schedule, by_epoch, late, places)
    found = open_run(tmp_path)
    assert_as_seen(found, found_seen)
    assert approximate(found, "interval") is None
    assert {checkpoint.rates_from for checkpoint in found.checkpoints} == {None if late else FROM_ONE}


@pytest.mark.parametrize("late", [False, True])
def test_a_schedule_by_epoch_needs_no_steps(late: bool, tmp_path: Path) -> None:
    seen = train(tmp_path, halving, True, late, lambda epoch, step: {"epoch": epoch})
    found = open_run(tmp_path)
    assert [checkpoint.learning_rates for checkpoint in found.checkpoints] == [seen[4], seen[9]]
    told = f"from its scheduler, taken to have stepped {'after' if late else 'before'} saving"
    assert {checkpoint.rates_from for checkpoint in found.checkpoints} == {told}
    assert found.steps_per_epoch is None and [checkpoint.step for checkpoint in found.checkpoints] == [None, None]


def test_without_a_scheduler_rates_are_the_optimizers(tmp_path: Path) -> None:
    seen = train(tmp_path, None, False, False, places)
    found = open_run(tmp_path)
    assert_as_seen(found, seen)
    assert {checkpoint.rates_from for checkpoint in found.checkpoints} == {"the optimizer as saved"}
    assert approximate(found, "interval") == (
        "eta: the rates of 8 of 10 steps were not noted: 4 before step 5, the first noted, are taken as its, "
        "which a warm-up makes too large; 4 between noted steps are interpolated"
    )
    assert found.optimizer is not None and found.optimizer.parameters["momentum"] == 0.9
    assert [group.shapes for group in found.groups] == [((4, 3), (4,)), ((2, 4), (2,))]
    assert all(checkpoint.optimizer_state == checkpoint.path for checkpoint in found.checkpoints)
    assert [(c.epoch, c.train_loss) for c in found.checkpoints] == [(0.0, 0.5), (1.0, 0.5)]


def test_a_schedule_that_no_state_keeps_leaves_the_rate_to_the_files_own_key(tmp_path: Path) -> None:
    def function(optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
        return lr_scheduler.LambdaLR(optimizer, lambda step: 0.9**step)

    train(tmp_path, function, True, False, lambda epoch, step: {"epoch": epoch, "lr": [0.3, 0.2]} if epoch else {})
    first, second = open_run(tmp_path).checkpoints
    assert (first.learning_rates, first.rates_from) == ((), None)
    assert (second.learning_rates, second.rates_from) == (
        (0.3, 0.2),
        "as the file has it under 'lr', which may be the next step's",
    )


def test_a_scheduler_that_was_not_saved_had_stepped(tmp_path: Path) -> None:
    """``initial_lr`` shows that there was one: the optimizer has the next step's rate."""
    seen = train(tmp_path, halving, True, False, places)
    for path in tmp_path.glob("*.pt"):
        document = torch.load(path, weights_only=True)
        del document["scheduler_state_dict"]
        torch.save(document, path)
    first, second = open_run(tmp_path).checkpoints
    assert (first.learning_rates, first.rates_from) == (
        seen[5],
        "the rate of the next step, as the optimizer was saved",
    )
    assert second.rates_from == first.rates_from
    assert open_run(tmp_path).history.noted(range(1, 12)).tolist() == [step in (6, 11) for step in range(1, 12)]


def counted(folder: Path, first: int, late: bool) -> list[Rates]:
    """Two files of Adam, after 4 and 8 steps; first: the number of the first step, as a script counts."""
    model = network()
    optimizer = torch.optim.Adam(two_groups(model))
    seen, scheduler = watched(optimizer), halving(optimizer)
    for step in range(first, 8 + first):
        torch.autograd.backward(model(torch.randn(4, 3)).square().mean())
        optimizer.step()
        if not late:
            scheduler.step()
        if len(seen) % 4 == 0:
            states: dict[str, Any] = {"net": model, "optim": optimizer, "sched": scheduler}
            document = {key: part.state_dict() for key, part in states.items()}
            torch.save({**document, "step": step}, folder / f"{step}.pt")
        if late:
            scheduler.step()
    return seen


def test_the_optimizers_own_count_shows_that_steps_are_counted_from_one(tmp_path: Path) -> None:
    seen = counted(tmp_path, 1, late=False)
    found = open_run(tmp_path)
    assert [(c.learning_rates, c.rates_from) for c in found.checkpoints] == [(seen[3], None), (seen[7], None)]


def test_steps_from_zero_and_a_scheduler_that_steps_later_fit_as_well_and_are_said(tmp_path: Path) -> None:
    counted(tmp_path, 0, late=True)
    assert {checkpoint.rates_from for checkpoint in open_run(tmp_path).checkpoints} == {FROM_ONE}


def test_steps_from_zero_and_a_scheduler_that_stepped_have_the_rates_of_the_last_step(tmp_path: Path) -> None:
    seen = counted(tmp_path, 0, late=False)
    found = open_run(tmp_path)
    assert [checkpoint.learning_rates for checkpoint in found.checkpoints] == [seen[3], seen[7]]
    assert {c.rates_from for c in found.checkpoints} == {"from its scheduler, taken to have stepped before saving"}


def test_a_files_own_rate_is_not_overruled_by_a_schedule(tmp_path: Path) -> None:
    train(tmp_path, to_zero, False, False, lambda epoch, step: {**places(epoch, step), "lr": [0.7, 0.14]})
    found = open_run(tmp_path)
    assert {checkpoint.learning_rates for checkpoint in found.checkpoints} == {(0.7, 0.14)}
    assert not found.history.noted(range(1, 5)).any()


def test_one_file_with_a_schedule_is_replayed_and_said_to_be(tmp_path: Path) -> None:
    seen = train(tmp_path, to_zero, False, False, places)
    (tmp_path / "epoch0.pt").unlink()
    found = open_run(tmp_path)
    assert found.history.rates(range(1, 11)) == pytest.approx(np.array(seen))
    assert found.caveats == (
        "the learning rates between the steps that were saved are those of the saved schedule, replayed",
    )


def test_an_optimizer_that_is_not_known_is_said(tmp_path: Path) -> None:
    model = network()
    optimizer = torch.optim.Adadelta(model.parameters())
    torch.autograd.backward(model(torch.ones(1, 3)).sum())
    optimizer.step()
    [caveat] = saved(tmp_path, a={"net": model.state_dict(), "optim": optimizer.state_dict()}).caveats
    assert caveat.startswith(
        "trained with an optimizer that is not known, which keeps acc_delta, square_avg, step; score"
    )


def test_bare_states_come_by_name_with_numbers_in_their_order(tmp_path: Path) -> None:
    found = saved(tmp_path, epoch10=STATE, epoch9=STATE, epoch1=STATE, start=STATE)
    assert names(found) == ["epoch1", "epoch9", "epoch10", "start"]
    safetensors.torch.save_file(STATE, tmp_path / "epoch02.safetensors")
    assert names(open_run(tmp_path)) == ["epoch1", "epoch02", "epoch9", "epoch10", "start"]
    assert {(c.learning_rates, c.step, c.optimizer_state) for c in found.checkpoints} == {((), None, None)}
    assert found.groups == () and found.optimizer is None


@pytest.mark.parametrize("key", ["step", "global_step", "iteration", "epoch"])
def test_files_come_in_the_order_of_their_own_keys_if_all_have_them(key: str, tmp_path: Path) -> None:
    found = saved(tmp_path, a={"model": STATE, key: 9}, b={"model": STATE, key: 10}, c={"model": STATE, key: 1})
    assert names(found) == ["c", "a", "b"]
    assert names(saved(tmp_path, a={"model": STATE})) == ["a", "b", "c"]


@pytest.mark.parametrize("ending", [".tar", ".pth.tar"])
def test_pytorchs_own_endings_are_seen(ending: str, tmp_path: Path) -> None:
    torch.save({"model_state_dict": STATE, "epoch": 3}, tmp_path / f"model{ending}")
    [found] = open_run(tmp_path).checkpoints
    assert (found.name, found.epoch) == (f"model{ending}", 3.0)


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ([(5, 0), (10, 1)], 5.0),
        ([(5, 1), (10, 2), (20, 4)], 5.0),
        ([(5, 1), (10, 2), (16, 3)], None),
        ([(7, 1), (12, 2)], None),
        ([(5, 1)], None),
        ([(0, 0), (5, 1), (10, 2)], 5.0),
        ([(0, 1), (5, 1), (10, 2)], 5.0),
        ([(0, 0)], None),
        ([(5, 1), (10, 1)], None),
    ],
)
def test_steps_an_epoch_follow_from_both_counts(
    known: list[tuple[int, int]], expected: float | None, tmp_path: Path
) -> None:
    files = {f"f{step}": {"model": STATE, "step": step, "epoch": epoch} for step, epoch in known}
    assert saved(tmp_path, **files).steps_per_epoch == expected


def test_what_is_no_checkpoint_is_passed_over(tmp_path: Path) -> None:
    for name in ("training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth", "rng_state_0.pth", "a.txt"):
        (tmp_path / name).touch()
    (tmp_path / "folder.pt").mkdir()
    (tmp_path / "step-000004.optimizer.pt").touch()
    (tmp_path / ".." / "outside.pt").resolve().touch()
    assert plain_files(tmp_path) == []
    assert names(saved(tmp_path, model=STATE)) == ["model"]


@pytest.mark.parametrize("document", [{"epoch": 3}, [STATE], {"model": "network"}, {}])
def test_a_file_without_weights_is_refused(document: Any, tmp_path: Path) -> None:
    expected = (
        r"a\.pt' holds no weights: expected tensors by name, or a dictionary with them under 'model_state_dict', "
    )
    with pytest.raises(CheckpointError, match=expected):
        saved(tmp_path, a=document)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", bytes(100)])
def test_a_broken_file_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(
        CheckpointError, match=r"a\.pt' cannot be read as weights only; save `model\.state_dict\(\)`, or"
    ):
        open_run(tmp_path)


def test_values_of_another_kind_are_not_known(tmp_path: Path) -> None:
    odd = {"step": "7", "epoch": [1], "loss": "low", "lr": "0.1", "optimizer": {"state": 1}, "scheduler": 7}
    [found] = saved(tmp_path, a={"model": STATE, **odd}).checkpoints
    assert (found.step, found.epoch, found.train_loss, found.learning_rates) == (None, None, None, ())
    assert found.optimizer_state is None


def test_checkpoints_with_different_groups_have_no_known_rates(tmp_path: Path) -> None:
    found = saved(tmp_path, a={"model": STATE, "lr": 0.1}, b={"model": STATE, "lr": [0.1, 0.2]})
    assert {checkpoint.learning_rates for checkpoint in found.checkpoints} == {()}
    assert found.caveats == (
        "the checkpoints have different numbers of parameter groups: their learning rates are not known",
    )
