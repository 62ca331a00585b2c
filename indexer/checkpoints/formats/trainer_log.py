"""``trainer_state.json`` of Hugging Face's Trainer: what it logged, and at which step a logged rate was used.

Trainer logs the rate of the first parameter group. Since transformers 5 (and late 4) that is the rate used in the
logged step; before, the scheduler had already stepped, and it was the rate of the next one. The optimizer saved with a
checkpoint always has the next step's rate, so that a log at or around a checkpoint tells which of both it is.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from indexer.checkpoints.formats.ticks import close
from indexer.checkpoints.values import MOST_STEPS, at, count, measured, number
from indexer.errors import CheckpointError

STATE = "trainer_state.json"


@dataclass(frozen=True, slots=True)
class TrainerLog:
    """The state at a checkpoint: its step and epoch, and what was logged until then, by step.

    rates: of the first group, at the step that logged them. epochs: passed at each step.
    """

    step: int
    epoch: float | None
    rates: dict[int, float] = field(default_factory=dict)
    losses: dict[int, float] = field(default_factory=dict)
    gradient_norms: dict[int, float] = field(default_factory=dict)
    epochs: dict[int, float] = field(default_factory=dict)

    def steps_per_epoch(self) -> float | None:
        """Return the optimizer's steps an epoch, from the last whole epoch that was logged, or else the last one.

        No whole number, as Trainer counts within an epoch whose last step has fewer batches, is approximate.
        """
        counted = {**self.epochs, self.step: self.epoch}
        known = {step: epoch for step, epoch in counted.items() if epoch and 0 < step / epoch <= MOST_STEPS}
        whole = [step for step, epoch in known.items() if epoch == int(epoch)]
        if not known:
            return None
        step = max(whole or known)
        found = step / known[step]
        return float(round(found)) if abs(found - round(found)) < 1e-6 * found else found


def parting(earlier: TrainerLog, last: TrainerLog) -> int | None:
    """Return the first step that an earlier checkpoint of the same training would have logged like the last one.

    None where its log is the beginning of the last one's. After saving, more may be logged at its own step.
    """
    apart: list[int] = []
    for own, whole in ((earlier.losses, last.losses), (earlier.rates, last.rates)):
        steps = {*own, *(step for step in whole if step < earlier.step)}
        apart += [step for step in steps if own.get(step) != whole.get(step)]
    return min(apart, default=None)


def read_log(checkpoint: Path, step: int) -> TrainerLog:
    """Return the state of a checkpoint's folder.

    Raises:
        CheckpointError: there is none, as in a folder that was not finished; or not one of this step.
    """
    path = checkpoint / STATE
    try:
        document = json.loads(path.read_bytes())  # NaN may be in it, which Python writes and strict readers refuse
    except FileNotFoundError as exc:
        raise CheckpointError(_no_state(checkpoint)) from exc
    except (OSError, ValueError, RecursionError) as exc:
        raise CheckpointError(f"{str(path)!r} is not JSON; remove the checkpoint, or save it again") from exc
    entries = at(document, "log_history")
    if not isinstance(entries, list) or count(at(document, "global_step")) != step:
        raise CheckpointError(
            f"{str(path)!r}: expected a log_history and global_step {step}, as the folder is named, found "
            f"{at(document, 'global_step')!r}; name the folder as Trainer did, or remove it"
        )
    found = TrainerLog(step, number(at(document, "epoch")))
    for entry in entries:
        _note(found, entry)
    return found


def _no_state(checkpoint: Path) -> str:
    where = f"checkpoint {checkpoint.name!r} in {str(checkpoint.parent)!r} has no {STATE}"
    if (checkpoint / "optimizer.bin").is_file() or any(checkpoint.glob("random_states_*.pkl")):
        return (
            f"{where}: Accelerate's save_state wrote it, and notes neither steps nor learning rates; list its file of "
            "weights, with step and learning_rate, in checkpoints.json"
        )
    return f"{where}; it was not finished: remove it, or save it again"


def _note(log: TrainerLog, entry: Any) -> None:
    """Take what an entry of the log tells of training; evaluations have no loss."""
    step = count(at(entry, "step"))
    if step is None or step == 0 or "loss" not in entry:
        return
    for series, key in (
        (log.rates, "learning_rate"),
        (log.losses, "loss"),
        (log.gradient_norms, "grad_norm"),
        (log.epochs, "epoch"),
    ):
        value = measured(entry.get(key)) if key in ("loss", "grad_norm") else number(entry.get(key))
        if value is not None:
            series[step] = value


def rates_used(logged: Mapping[int, float], saved: Mapping[int, float]) -> tuple[dict[int, float], bool]:
    """Return the logged rates at the steps that used them, and whether that is known.

    saved: the first group's rate in the optimizer of each checkpoint, by step: that of the next step.
    """
    at_next = _logged_next(logged, saved)
    shift = 1 if at_next else 0
    constant = len({*logged.values(), *saved.values()}) == 1 and len(logged) > 1  # one alone may be on its way
    return {step + shift: rate for step, rate in logged.items()}, at_next is not None or constant or not logged


def _logged_next(logged: Mapping[int, float], saved: Mapping[int, float]) -> bool | None:
    """Return whether the log has the next step's rates; None where nothing tells.

    At a step that both have, a difference says no; no difference says yes, but only where the rate was changing. Else
    the rate saved at step N, that of step N + 1, is compared with what the log has, between its steps, at N and N + 1.
    """
    both = [step for step in saved if step in logged]
    if any(not close([logged[step]], [saved[step]]) for step in both):
        return False
    steps = sorted(logged)
    rates = np.array([logged[step] for step in steps])
    if any(_changing(steps.index(step), rates) for step in both):
        return True
    within = [step for step in saved if steps and steps[0] <= step < steps[-1]]
    if not within:
        return None
    used, following = (
        float(sum(abs(np.interp(step + shift, steps, rates) - saved[step]) for step in within)) for shift in (1, 0)
    )
    return None if close([used], [following]) else following < used


def _changing(place: int, rates: np.ndarray) -> bool:
    """Whether a rate differs from the one logged before and from the one after: an end may be that of a warm-up."""
    return 0 < place < len(rates) - 1 and bool(rates[place - 1] != rates[place] != rates[place + 1])
