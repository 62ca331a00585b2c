"""A folder that Hugging Face's Trainer wrote: ``checkpoint-N/`` for the checkpoint after N steps of the optimizer.

Each has the weights, ``trainer_state.json`` with the log until then (`indexer.checkpoints.formats.trainer_log`), and,
without ``save_only_model=True``, ``optimizer.pt`` and ``scheduler.pt``, whose rates are those of step N + 1.
``training_args.bin`` is a pickle and is not read. How rates come from these:
`indexer.checkpoints.formats.trainer_rates`. Two trainings in one folder overwrite each other's checkpoints and leave
some: every log must be the beginning of the last one's, or the folder is refused.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from indexer.checkpoints.formats.notes import NEXT, Notes, loss_at, rates_at
from indexer.checkpoints.formats.ticks import Mark
from indexer.checkpoints.formats.trainer_log import TrainerLog, parting, read_log
from indexer.checkpoints.formats.trainer_rates import contradicted, known_rates
from indexer.checkpoints.groups import parameter_groups
from indexer.checkpoints.history import History
from indexer.checkpoints.optimizer_state import read_optimizer_state, recognise, saved_rates, unknown_optimizer
from indexer.checkpoints.run import Checkpoint, Run
from indexer.checkpoints.values import MOST_STEPS
from indexer.checkpoints.weights import ADAPTER, SHARDED, WHOLE
from indexer.checkpoints.weights_only import peek_weights_only
from indexer.errors import CheckpointError

KIND = "a folder of Hugging Face's Trainer"
_WHOLE = (*WHOLE, *SHARDED)
_NAME = re.compile(r"checkpoint-(\d{1,18})")
_ADVICE = "save it again with Trainer, or remove it: then the rates come from the log alone"
_TWO = (
    "they are of two trainings; move the checkpoints of the other one away, or, where the learning rate was set by "
    "hand, list them with their rates in checkpoints.json"
)


@dataclass(frozen=True, slots=True)
class _Saved:
    path: Path
    step: int
    epoch: float | None
    optimizer: Any
    mark: Mark | None


def trainer_checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """Return the checkpoints in a folder by their steps, in order; none where it is not Trainer's."""
    found = [(_NAME.fullmatch(path.name), path) for path in folder.iterdir() if path.is_dir()]
    return sorted((int(name[1]), path) for name, path in found if name is not None)


def read_trainer(folder: Path) -> Run:
    """Return the run in a folder of Trainer.

    Raises:
        CheckpointError: a checkpoint is not finished, unreadable, has no weights of its own, or is of another training
            than the last one.
    """
    found = trainer_checkpoints(folder)
    _check_steps(found)
    log = read_log(found[-1][1], found[-1][0])
    saved = [_saved(step, path, log) for step, path in found]
    marks = [entry.mark for entry in saved if entry.mark is not None]
    _check_marks(saved, log, marks)
    rates, caveats = known_rates(log, marks)
    held = any(mark.goes_down_in_steps for mark in marks)
    noted = Notes(rates, log.losses, log.gradient_norms, held).history()
    last, steps_per_epoch = saved[-1].optimizer, log.steps_per_epoch()
    return Run(
        folder=folder,
        kind=KIND,
        checkpoints=tuple(_checkpoint(entry, noted) for entry in saved),
        history=noted,
        groups=() if last is None else parameter_groups(last),
        steps_per_epoch=steps_per_epoch,
        optimizer=None if last is None else recognise(last),
        caveats=(*caveats, *_of_epochs(steps_per_epoch), *(() if last is None else unknown_optimizer(last))),
    )


def has_weights(folder: Path) -> bool:
    """Whether a folder is itself a checkpoint, of a model or of an adapter."""
    return any((folder / name).is_file() for name in _WHOLE + ADAPTER)


def _check_steps(found: Sequence[tuple[int, Path]]) -> None:
    for (step, path), (next_step, other) in pairwise([(0, Path()), *found]):
        if not 0 < next_step <= MOST_STEPS:
            where = f"checkpoint {other.name!r} in {str(other.parent)!r}"
            raise CheckpointError(f"{where}: expected a step up to {MOST_STEPS:,}")
        if step == next_step:
            raise CheckpointError(
                f"{path.name!r} and {other.name!r} in {str(path.parent)!r} are both of step {step}; move one of them "
                "away"
            )


def _saved(step: int, path: Path, last: TrainerLog) -> _Saved:
    log = last if step == last.step else read_log(path, step)
    apart = parting(log, last)
    if apart is not None:
        raise CheckpointError(
            f"{path.name!r} and 'checkpoint-{last.step}' in {str(path.parent)!r} logged different losses or learning "
            f"rates at step {apart}: {_TWO}"
        )
    if not has_weights(path):
        raise CheckpointError(_no_weights(path))
    if not (path / "optimizer.pt").is_file():
        return _Saved(path, step, log.epoch, None, None)
    optimizer = read_optimizer_state(path / "optimizer.pt", _ADVICE)
    scheduler = peek_weights_only(path / "scheduler.pt", _ADVICE) if (path / "scheduler.pt").is_file() else {}
    known = scheduler if isinstance(scheduler, dict) else {}
    mark = Mark(step, saved_rates(optimizer), optimizer["param_groups"], known)
    return _Saved(path, step, log.epoch, optimizer, mark)


def _check_marks(saved: Sequence[_Saved], log: TrainerLog, marks: Sequence[Mark]) -> None:
    mark = contradicted(log, marks)
    if mark is not None:
        [path] = [entry.path for entry in saved if entry.mark is mark]
        raise CheckpointError(
            f"the optimizer in {path.name!r} has other learning rates than those of 'checkpoint-{log.step}' in "
            f"{str(path.parent)!r} and its log: {_TWO}"
        )


def _of_epochs(steps: float | None) -> tuple[str, ...]:
    if steps is None or steps == int(steps):
        return ()
    return (f"the steps an epoch are approximate: {steps:.4g} by the log, which has no whole number of them",)


def _no_weights(path: Path) -> str:
    where = f"checkpoint {path.name!r} in {str(path.parent)!r} has no whole weights ({', '.join(_WHOLE + ADAPTER)})"
    if any(path.glob("global_step*")):
        return f"{where}: DeepSpeed wrote parts of them; make one file with the zero_to_fp32.py that lies in it"
    if any(path.glob("pytorch_model_fsdp*")):
        return (
            f"{where}: FSDP wrote parts of them; save with state_dict_type FULL_STATE_DICT, or make one file with "
            "`accelerate merge-weights`"
        )
    named = sorted(inner.name for inner in path.iterdir() if any((inner / name).is_file() for name in ADAPTER))
    if named:
        return (
            f"{where}: PEFT saves an adapter that is not called 'default' in a folder of its name, here "
            f"{', '.join(map(repr, named))}; move the files of the one to use from it up into {path.name!r}"
        )
    return f"{where}; save it again, or remove it"


def _checkpoint(saved: _Saved, noted: History) -> Checkpoint:
    rates, origin = rates_at(noted, saved.step) or ((), None)
    if not rates and saved.mark is not None and noted.learning_rates.shape[1] == len(saved.mark.rates):
        rates, origin = saved.mark.rates, NEXT
    return Checkpoint(
        path=saved.path,
        learning_rates=rates,
        step=saved.step,
        epoch=saved.epoch,
        train_loss=loss_at(noted, saved.step),
        optimizer_state=None if saved.optimizer is None else saved.path / "optimizer.pt",
        rates_from=origin,
        adapter=not any((saved.path / name).is_file() for name in _WHOLE),
    )
