"""A folder that Hugging Face's Trainer wrote: ``checkpoint-N/`` for the checkpoint after N steps of the optimizer.

Each has the weights, ``trainer_state.json`` with the log until then (`indexer.checkpoints.formats.trainer_log`), and,
without ``save_only_model=True``, ``optimizer.pt`` and ``scheduler.pt``, whose rates are those of step N + 1.
``training_args.bin`` is a pickle and is not read. Rates come from, in this order: the schedule, where the scheduler's
state tells it (Trainer's own are functions, which no state keeps); the log and the saved optimizers, each at the step
that used its rate, and a straight line between those.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from indexer.checkpoints.formats.notes import NEXT, Notes, Rates, loss_at, rates_at
from indexer.checkpoints.formats.ticks import Mark, close, scheduled
from indexer.checkpoints.formats.trainer_log import TrainerLog, rates_used, read_log
from indexer.checkpoints.groups import parameter_groups
from indexer.checkpoints.history import History
from indexer.checkpoints.optimizer_state import read_optimizer_state, recognise, saved_rates
from indexer.checkpoints.run import Checkpoint, Run
from indexer.checkpoints.values import MOST_STEPS, number
from indexer.checkpoints.weights import ADAPTER, SHARDED, WHOLE
from indexer.checkpoints.weights_only import peek_weights_only
from indexer.errors import CheckpointError

KIND = "a folder of Hugging Face's Trainer"
_WHOLE = (*WHOLE, *SHARDED)
_NAME = re.compile(r"checkpoint-(\d{1,18})")
_ADVICE = "save it again with Trainer, or remove it: then the rates come from the log alone"


@dataclass(frozen=True, slots=True)
class _Saved:
    path: Path
    log: TrainerLog
    optimizer: Any
    mark: Mark | None


def trainer_checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """Return the checkpoints in a folder by their steps, in order; none where it is not Trainer's."""
    found = [(_NAME.fullmatch(path.name), path) for path in folder.iterdir() if path.is_dir()]
    return sorted((int(name[1]), path) for name, path in found if name is not None)


def read_trainer(folder: Path) -> Run:
    """Return the run in a folder of Trainer.

    Raises:
        CheckpointError: a checkpoint is not finished, unreadable, or has no weights of its own.
    """
    saved = [_saved(step, path) for step, path in trainer_checkpoints(folder)]
    log, last = saved[-1].log, saved[-1].optimizer
    marks = [entry.mark for entry in saved if entry.mark is not None]
    rates, caveats = _rates(log, marks)
    noted = Notes(rates, log.losses, log.gradient_norms).history()
    return Run(
        folder=folder,
        kind=KIND,
        checkpoints=tuple(_checkpoint(entry, noted) for entry in saved),
        history=noted,
        groups=() if last is None else parameter_groups(last),
        steps_per_epoch=log.steps_per_epoch(),
        optimizer=None if last is None else recognise(last),
        caveats=caveats,
    )


def has_weights(folder: Path) -> bool:
    """Whether a folder is itself a checkpoint, of a model or of an adapter."""
    return any((folder / name).is_file() for name in _WHOLE + ADAPTER)


def _saved(step: int, path: Path) -> _Saved:
    if not 0 < step <= MOST_STEPS:
        raise CheckpointError(f"checkpoint {path.name!r} in {str(path.parent)!r}: expected a step up to {MOST_STEPS:,}")
    log = read_log(path, step)
    if not has_weights(path):
        raise CheckpointError(_no_weights(path))
    if not (path / "optimizer.pt").is_file():
        return _Saved(path, log, None, None)
    optimizer = read_optimizer_state(path / "optimizer.pt", _ADVICE)
    scheduler = peek_weights_only(path / "scheduler.pt", _ADVICE) if (path / "scheduler.pt").is_file() else {}
    known = scheduler if isinstance(scheduler, dict) else {}
    return _Saved(path, log, optimizer, Mark(step, saved_rates(optimizer), optimizer["param_groups"], known))


def _no_weights(path: Path) -> str:
    where = f"checkpoint {path.name!r} in {str(path.parent)!r} has no whole weights ({', '.join(_WHOLE + ADAPTER)})"
    if any(path.glob("global_step*")):
        return f"{where}: DeepSpeed wrote parts of them; make one file with the zero_to_fp32.py that lies in it"
    if any(path.glob("pytorch_model_fsdp*")):
        return (
            f"{where}: FSDP wrote parts of them; save with state_dict_type FULL_STATE_DICT, or make one file with "
            "`accelerate merge-weights`"
        )
    return f"{where}; save it again, or remove it"


def _rates(log: TrainerLog, marks: list[Mark]) -> tuple[dict[int, Rates], tuple[str, ...]]:
    """Return the rates used, by step, and what a reader must know of them."""
    if not marks:
        used, sure = rates_used(log.rates, {})
        said = (
            "no optimizer was saved: the logged learning rate, of the first parameter group, is taken for all",
            *(() if sure else (_UNSURE,)),
        )
        return {step: (rate,) for step, rate in used.items()}, said
    if len({len(mark.rates) for mark in marks}) > 1:
        return {}, (_CHANGED,)
    following = {mark.step + 1: mark.rates for mark in marks}
    known = {**following, **scheduled(marks, None, {})}
    if all(step in known for step in range(1, marks[-1].step + 1)):
        return known, ()
    base = _base(marks)
    if base is None:
        return {}, (_DIFFERENT,)
    used, sure = rates_used(log.rates, {mark.step: mark.rates[0] for mark in marks})
    from_log = {step: (rate, *(rate * initial / base[0] for initial in base[1:])) for step, rate in used.items()}
    return _from_start({**from_log, **known}, base), () if sure else (_UNSURE,)


_UNSURE = "the log's learning rates may be of the step after: older versions of Trainer logged that, and nothing tells"
_CHANGED = "the optimizer got parameter groups while it trained: their learning rates are not known"
_DIFFERENT = (
    "the parameter groups follow different schedules, and Trainer logs the first alone: their learning rates are not "
    "known"
)


def _base(marks: list[Mark]) -> Rates | None:
    """Return rates that those of the groups are in proportion to at every mark, or None where there are none.

    A schedule multiplies the group's own ``initial_lr``, which the optimizer keeps.
    """
    initial = [number(group.get("initial_lr")) for group in marks[-1].groups]
    base = tuple(rate for rate in initial if rate is not None)
    if len(base) < len(initial):
        base = (1.0,) * len(initial)
    if base[0] == 0:
        return None
    proportional = all(close(mark.rates, [mark.rates[0] * rate / base[0] for rate in base]) for mark in marks)
    return base if proportional else None


def _from_start(known: dict[int, Rates], base: Rates) -> dict[int, Rates]:
    """Add the first step's rates where it used ``initial_lr``: the later ones, two at least, fall on a line from there.

    All on a level says nothing of the first steps: they may have been a warm-up.
    """
    if 1 in known or len(known) < 2:
        return known
    last = max(known)
    slope = (known[last][0] - base[0]) / (last - 1)
    on_line = all(abs(rates[0] - base[0] - slope * (step - 1)) < 1e-9 * base[0] for step, rates in known.items())
    return {1: base, **known} if on_line and slope < 0 else known


def _checkpoint(saved: _Saved, noted: History) -> Checkpoint:
    rates, origin = rates_at(noted, saved.log.step) or ((), None)
    if not rates and saved.mark is not None and noted.learning_rates.shape[1] == len(saved.mark.rates):
        rates, origin = saved.mark.rates, NEXT
    return Checkpoint(
        path=saved.path,
        learning_rates=rates,
        step=saved.log.step,
        epoch=saved.log.epoch,
        train_loss=loss_at(noted, saved.log.step),
        optimizer_state=None if saved.optimizer is None else saved.path / "optimizer.pt",
        rates_from=origin,
        adapter=not any((saved.path / name).is_file() for name in _WHOLE),
    )
