"""A folder of files that a training script of one's own saved: bare state dicts, or dictionaries around them.

What one file says: `indexer.checkpoints.formats.plain_file`. Scripts count steps from 1 or from 0, and step their
scheduler before saving or after it: where all files fit two readings that differ, the rate says which one was taken.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from indexer.checkpoints.formats.listing import HISTORY, OPTIMIZER
from indexer.checkpoints.formats.notes import NEXT, Notes
from indexer.checkpoints.formats.plain_file import Saved, last_rates, read_file
from indexer.checkpoints.formats.ticks import close, scheduled, steps_per_tick
from indexer.checkpoints.groups import parameter_groups
from indexer.checkpoints.history import History
from indexer.checkpoints.optimizer_state import recognise, steps_taken, unknown_optimizer
from indexer.checkpoints.run import Checkpoint, Run
from indexer.checkpoints.values import Rates, at, count
from indexer.errors import CheckpointError

KIND = "a folder of checkpoint files"
SUFFIXES = (".pt", ".pth", ".bin", ".safetensors", ".ckpt")
_NOT_WEIGHTS = re.compile(r"training_args\.bin|(optimizer|scheduler|scaler|rng_state.*)\.(pt|pth|bin)")
_FROM_ONE = "from its scheduler, taken to have stepped before saving, and the file's steps to be counted from 1"


def plain_files(folder: Path) -> list[Path]:
    """Return the files in a folder that may be checkpoints, by name with numbers in their order."""
    files = [path for path in folder.iterdir() if path.suffix in SUFFIXES and path.is_file()]
    files = [path for path in files if not path.name.endswith((HISTORY, OPTIMIZER))]  # of a recording
    return sorted((path for path in files if not _NOT_WEIGHTS.fullmatch(path.name)), key=_natural)


def read_plain(folder: Path) -> Run:
    """Return the run of a folder's files: in the order of their steps or epochs if all have one, else of their names.

    Raises:
        CheckpointError: a file cannot be read, holds no weights, or is of the same step as another.
    """
    saved = _ordered([read_file(path) for path in plain_files(folder)])
    steps_per_epoch = _steps_per_epoch(saved)
    rates = [last_rates(entry, stepped=_stepped(saved)) for entry in saved]
    caveats: tuple[str, ...] = ()
    if len({len(found) for found, _ in rates if found}) > 1:
        caveats = ("the checkpoints have different numbers of parameter groups: their learning rates are not known",)
        rates = [((), None) for _ in rates]
    notes = _notes(saved, rates)
    marks = [entry.mark for entry in saved if entry.mark is not None]
    told: dict[int, Rates] = {}
    if len(marks) == len(saved) and not caveats:
        own = {entry.step or 0: found for entry, (found, _) in zip(saved, rates, strict=True) if found == entry.rates}
        told, caveats = scheduled(marks, steps_per_epoch, {step: found for step, found in own.items() if found})
    notes.rates.update(told)
    noted = notes.history()
    doubtful = _doubtful(saved, steps_per_epoch, told)
    last = next((entry.optimizer for entry in reversed(saved) if entry.optimizer is not None), None)
    return Run(
        folder=folder,
        kind=KIND,
        checkpoints=tuple(
            _checkpoint(entry, _at_step(entry, known, told, noted), doubtful)
            for entry, known in zip(saved, rates, strict=True)
        ),
        history=noted,
        groups=() if last is None else parameter_groups(last),
        steps_per_epoch=steps_per_epoch,
        optimizer=None if last is None else recognise(last),
        caveats=caveats if last is None else (*caveats, *unknown_optimizer(last)),
    )


def _natural(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d{1,18})", path.name)]


def _ordered(saved: list[Saved]) -> list[Saved]:
    for key in ("step", "epoch"):
        places = [getattr(entry, key) for entry in saved]
        if None in places:
            continue
        ordered = sorted(saved, key=lambda entry: getattr(entry, key))
        for one, other in pairwise(ordered):
            if getattr(one, key) == getattr(other, key):
                raise CheckpointError(
                    f"{one.path.name!r} and {other.path.name!r} in {str(one.path.parent)!r} are both of {key} "
                    f"{getattr(one, key):g}; move one of them away, or list those to use in checkpoints.json"
                )
        return ordered
    return saved


def _steps_per_epoch(saved: Sequence[Saved]) -> float | None:
    """Return the steps between two epochs, if they are the same between all and from the start on.

    Scripts count epochs from 0 or from 1; that makes no difference here.
    """
    known = [(entry.step, entry.epoch) for entry in saved if entry.step and entry.epoch is not None]
    found = {(b - a) / (f - e) for (a, e), (b, f) in pairwise(known) if f != e}
    if len(known) < len(saved) or len(found) != 1:
        return None
    steps, (step, epoch) = found.pop(), known[0]
    return steps if step in {steps * epoch, steps * (epoch + 1)} else None


def _stepped(saved: Sequence[Saved]) -> int:
    """Return 1 where ``scheduler.step()`` came before saving, as in most scripts, else 0.

    A scheduler that has not stepped at the first checkpoint shows the other order.
    """
    ticks = [count(at(entry.scheduler, "last_epoch")) for entry in saved if entry.scheduler is not None]
    return 0 if 0 in ticks else 1


def _notes(saved: Sequence[Saved], rates: Sequence[tuple[Rates, str | None]]) -> Notes:
    """Return what the files themselves say of their steps, if all have one."""
    notes = Notes(held=any(entry.mark is not None and entry.mark.goes_down_in_steps for entry in saved))
    if not all(entry.step for entry in saved):
        return notes
    for entry, (found, origin) in zip(saved, rates, strict=True):
        step = entry.step or 0
        if found:
            notes.rates[step + int(origin == NEXT)] = found
        if entry.loss is not None:
            notes.losses[step] = entry.loss
    return notes


def _doubtful(saved: Sequence[Saved], steps: float | None, told: Mapping[int, Rates]) -> set[int]:
    """Return the steps whose rates would be others if the files counted from 0 and the scheduler stepped after saving.

    None of them where a file does not fit that, or where the optimizer's own count of its steps is the files'.
    """
    marks = [entry.mark for entry in saved if entry.mark is not None]
    counted = [None if entry.optimizer is None else steps_taken(entry.optimizer) for entry in saved]
    per_tick = steps_per_tick(marks, steps)
    if per_tick is None or counted == [entry.step for entry in saved]:
        return set()
    if any(mark.tick not in {mark.step // per_tick, (mark.step + 1) // per_tick} for mark in marks):
        return set()
    pairs = [(mark.step, told.get(mark.step), told.get(mark.step + 1)) for mark in marks]
    return {step for step, one, other in pairs if one is not None and other is not None and not close(one, other)}


def _at_step(
    saved: Saved, known: tuple[Rates, str | None], told: Mapping[int, Rates], noted: History
) -> tuple[Rates, str | None]:
    if saved.step is not None and saved.step in told:
        return told[saved.step], None
    return known


def _checkpoint(saved: Saved, rates: tuple[Rates, str | None], doubtful: Collection[int]) -> Checkpoint:
    found, origin = rates
    return Checkpoint(
        path=saved.path,
        learning_rates=found,
        step=saved.step,
        epoch=saved.epoch,
        train_loss=saved.loss,
        optimizer_state=None if saved.optimizer is None else saved.path,
        rates_from=_FROM_ONE if saved.step in doubtful else origin,
    )
