"""One file of a script of one's own: what it says, which rate is whose, and the way out for files with objects."""

from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler

from indexer.checkpoints.formats.notes import NEXT
from indexer.checkpoints.formats.plain_file import Saved, last_rates, read_file
from indexer.errors import CheckpointError
from tests.runs import network

SAVED = "the optimizer as saved"


def trained(steps: int = 3) -> tuple[dict[str, Any], dict[str, Any]]:
    """The states of an optimizer at 0.1 and of a scheduler that halves its rate at every step, after it."""
    optimizer = torch.optim.SGD(network().parameters(), lr=0.1)
    scheduler = lr_scheduler.StepLR(optimizer, 1, 0.5)
    for _ in range(steps):
        optimizer.step()
        scheduler.step()
    return optimizer.state_dict(), scheduler.state_dict()


def written(folder: Path, **more: Any) -> Saved:
    torch.save({"model": network().state_dict()} | more, folder / "a.pt")
    found = read_file(folder / "a.pt")
    assert found is not None
    return found


def test_what_a_file_says(tmp_path: Path) -> None:
    optimizer, scheduler = trained()
    more = {"iteration": 3, "epoch": 1, "loss": 0.5, "learning_rate": [0.1, 0.2]}
    found = written(tmp_path, optim=optimizer, sched=scheduler, **more)
    assert (found.step, found.epoch, found.loss, found.rates, found.key) == (3, 1.0, 0.5, (0.1, 0.2), "learning_rate")
    assert found.mark is not None and (found.mark.step, found.mark.tick, found.mark.rates) == (3, 3, (0.0125,))
    assert written(tmp_path, optim=optimizer, sched=scheduler).mark is None


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    found = written(tmp_path, step=np.int64(7), epoch=np.int32(1), loss=np.mean([0.25, 0.5]), lr=np.float32(0.5))
    assert (found.step, found.epoch, found.loss, found.rates) == (7, 1.0, 0.375, (0.5,))


def test_a_state_of_an_optimizer_alone_says_nothing(tmp_path: Path) -> None:
    optimizer, _ = trained()
    for document in (optimizer, {"optimizer": optimizer, "epoch": 3}):
        torch.save(document, tmp_path / "optimizer_3.pt")
        assert read_file(tmp_path / "optimizer_3.pt") is None


def test_an_averaged_model_is_seen(tmp_path: Path) -> None:
    averaged = torch.optim.swa_utils.AveragedModel(network()).state_dict()
    assert written(tmp_path, model=averaged).averaged and not written(tmp_path).averaged


def test_a_rate_is_the_last_steps_by_either_order() -> None:
    optimizer, scheduler = trained()
    both = Saved(Path("a.pt"), optimizer=optimizer, scheduler=scheduler)
    assert last_rates(both, 1) == ((0.025,), "from its scheduler, taken to have stepped before saving")
    assert last_rates(both, 0) == ((0.0125,), "from its scheduler, taken to have stepped after saving")


@pytest.mark.parametrize(
    ("own", "expected"), [(0.025, 0.025), (0.0125, 0.025), (0.0125 * (1 + 1e-7), 0.025), (0.3, 0.3)]
)
def test_a_rate_of_the_files_own_must_be_of_the_schedule(own: float, expected: float) -> None:
    optimizer, scheduler = trained()
    rates, origin = last_rates(Saved(Path("a.pt"), None, None, None, (own,), "lr", optimizer, scheduler), 1)
    assert rates == (expected,)
    assert origin is not None and ("under 'lr', which may be the next step's" in origin) == (own == 0.3)


def test_an_optimizer_that_had_a_scheduler_has_the_next_steps_rate() -> None:
    optimizer, _ = trained()
    assert last_rates(Saved(Path("a.pt"), optimizer=optimizer), 1) == ((0.0125,), NEXT)
    plain = torch.optim.SGD(network().parameters(), lr=0.1).state_dict()
    assert last_rates(Saved(Path("a.pt"), optimizer=plain), 1) == ((0.1,), SAVED)


def test_the_advice_works(tmp_path: Path) -> None:
    """Its two statements, run on a file with an object that weights_only refuses."""
    optimizer, scheduler = trained()
    with pytest.raises(
        CheckpointError, match=r"convert it once: .*it holds an object of argparse\.Namespace"
    ) as refused:
        written(tmp_path, optimizer=optimizer, scheduler=scheduler, step=3, args=Namespace(lr=0.1))
    program = next(part for part in str(refused.value).split("`") if part.startswith("d = "))
    exec(program, {"torch": torch, "path": tmp_path / "a.pt", "new_path": tmp_path / "b.pt"})
    found = read_file(tmp_path / "b.pt")
    assert found is not None and found.mark is not None and found.mark.tick == 3
