"""A folder of files that a training script of one's own saved: bare state dicts, or dictionaries around them.

What one file says: `indexer.checkpoints.formats.plain_file`. Scripts count steps from 1 or from 0, and step their
scheduler before saving or after it: where all files fit two readings that differ, the rate says which one was taken.
"""

import re
import tarfile
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from indexer.checkpoints.formats.listing import HISTORY, OPTIMIZER
from indexer.checkpoints.formats.notes import NEXT, Notes
from indexer.checkpoints.formats.plain_file import Saved, last_rates, read_file, same_weights
from indexer.checkpoints.formats.ticks import close, scheduled, steps_per_tick
from indexer.checkpoints.groups import parameter_groups
from indexer.checkpoints.optimizer_state import recognise, steps_taken, unknown_optimizer
from indexer.checkpoints.run import Checkpoint, Run
from indexer.checkpoints.values import Rates, at, count
from indexer.checkpoints.wrapped import averages
from indexer.errors import CheckpointError

KIND = "a folder of checkpoint files"
SUFFIXES = (".pt", ".pth", ".tar", ".bin", ".safetensors", ".ckpt")
_NOT_WEIGHTS = re.compile(r"training_args\.bin|(optimizer|scheduler|scaler|rng_state.*)\.(pt|pth|bin)")
_FROM_ONE = "from its scheduler, taken to have stepped before saving, and the file's steps to be counted from 1"


def plain_files(folder: Path) -> list[Path]:
    """Return the files in a folder that may be checkpoints, by name with numbers in their order."""
    files = [path for path in folder.iterdir() if path.suffix in SUFFIXES and path.is_file()]
    files = [path for path in files if not path.name.endswith((HISTORY, OPTIMIZER))]  # of a recording
    files = [path for path in files if path.suffix != ".tar" or not tarfile.is_tarfile(path)]  # an archive, as of data
    return sorted((path for path in files if not _NOT_WEIGHTS.fullmatch(path.name)), key=_natural)


def read_plain(folder: Path) -> Run:
    """Return the run of a folder's files: in the order of their steps or epochs if all have one, else of their names.

    Raises:
        CheckpointError: a file cannot be read, holds no weights, has no place, or is of another one's step and differs.
    """
    read = [read_file(path) for path in plain_files(folder)]
    saved = _ordered([entry for entry in read if entry is not None])
    if not saved:
        raise CheckpointError(
            f"{str(folder)!r} holds the states of optimizers and no weights; save `model.state_dict()` too"
        )
    steps_per_epoch = _steps_per_epoch(saved)
    rates = [last_rates(entry, stepped=_stepped(saved)) for entry in saved]
    caveats: tuple[str, ...] = ()
    if len({len(found) for found, _ in rates if found}) > 1:
        caveats = ("the checkpoints have different numbers of parameter groups: their learning rates are not known",)
        rates = [((), None) for _ in rates]
    notes = _notes(saved, rates)
    marks = [entry.mark for entry in saved if entry.mark is not None]
    told: dict[int, Rates] = {}
    if len(marks) == sum(entry.step != 0 for entry in saved) > 0 and not caveats:
        own = {entry.step or 0: found for entry, (found, _) in zip(saved, rates, strict=True) if found == entry.rates}
        told, caveats = scheduled(
            marks, steps_per_epoch, {step: found for step, found in own.items() if step and found}
        )
    notes.rates.update(told)
    noted = notes.history()
    doubtful = _doubtful(saved, steps_per_epoch, told)
    last = next((entry.optimizer for entry in reversed(saved) if entry.optimizer is not None), None)
    return Run(
        folder=folder,
        kind=KIND,
        checkpoints=tuple(
            _checkpoint(entry, (told[entry.step], None) if entry.step in told else known, doubtful)
            for entry, known in zip(saved, rates, strict=True)
        ),
        history=noted,
        groups=() if last is None else parameter_groups(last),
        steps_per_epoch=steps_per_epoch,
        optimizer=None if last is None else recognise(last),
        caveats=(*caveats, *_averaged(saved), *(() if last is None else unknown_optimizer(last))),
    )


def _averaged(saved: Sequence[Saved]) -> tuple[str, ...]:
    return averages([entry.path.name for entry in saved if entry.averaged], "AveragedModel")


def _natural(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d{1,18})", path.name)]


def _ordered(saved: list[Saved]) -> list[Saved]:
    """Return the files in training order, one of those that are of one step or epoch and have the same weights.

    Raises:
        CheckpointError: two of one step or epoch have different weights, or a file's place is not known.
    """
    telling = [entry for entry in saved if not entry.bare]
    for key in ("step", "epoch"):
        if telling and all(getattr(entry, key) is not None for entry in telling):
            _check_bare(saved, telling)
            return _one_each(telling, key)
    return saved


def _check_bare(saved: Sequence[Saved], telling: Sequence[Saved]) -> None:
    """Make sure that each bare state dict, as ``best_model.pt``, repeats one of the files that tell their place.

    Raises:
        CheckpointError: one does not.
    """
    for entry in saved:
        if entry.bare and not any(same_weights(entry.path, other.path) for other in telling):
            raise CheckpointError(
                f"{entry.path.name!r} in {str(entry.path.parent)!r} is a bare state dict: it says no step or epoch, as "
                "the other files do, and has the weights of none of them; move it away, or list the files to use, in "
                "training order, in checkpoints.json"
            )


def _one_each(saved: Sequence[Saved], key: str) -> list[Saved]:
    kept: list[Saved] = []
    for entry in sorted(saved, key=lambda entry: (getattr(entry, key), entry.optimizer is None)):
        place = getattr(entry, key)
        if not kept or getattr(kept[-1], key) != place:
            kept.append(entry)
        elif not same_weights(kept[-1].path, entry.path):
            raise CheckpointError(
                f"{kept[-1].path.name!r} and {entry.path.name!r} in {str(entry.path.parent)!r} are both of {key} "
                f"{place:g} and have different weights; move one of them away, or list those to use in checkpoints.json"
            )
    return kept


def _steps_per_epoch(saved: Sequence[Saved]) -> float | None:
    """Return the steps between two epochs, if they are the same between all and from the start on.

    Scripts count epochs from 0 or from 1; that makes no difference here.
    """
    known = [(entry.step, entry.epoch) for entry in saved if entry.step is not None and entry.epoch is not None]
    found = {(b - a) / (f - e) for (a, e), (b, f) in pairwise(known) if f != e}
    if len(known) < len(saved) or len(found) != 1:
        return None
    steps, (step, epoch) = found.pop(), next(place for place in known if place[0] > 0)
    return steps if step in {steps * epoch, steps * (epoch + 1)} else None


def _stepped(saved: Sequence[Saved]) -> int:
    """Return 1 where ``scheduler.step()`` came before saving, as in most scripts, else 0.

    A scheduler that has not stepped at the first checkpoint shows the other order.
    """
    ticks = [count(at(entry.scheduler, "last_epoch")) for entry in saved if entry.scheduler and entry.step != 0]
    return 0 if 0 in ticks else 1


def _notes(saved: Sequence[Saved], rates: Sequence[tuple[Rates, str | None]]) -> Notes:
    """Return what the files themselves say of their steps, if all have one; step 0 is before any."""
    notes = Notes(held=any(entry.mark is not None and entry.mark.goes_down_in_steps for entry in saved))
    if any(entry.step is None for entry in saved):
        return notes
    for entry, (found, origin) in zip(saved, rates, strict=True):
        if entry.step and found:
            notes.rates[entry.step + int(origin == NEXT)] = found
        if entry.step and entry.loss is not None:
            notes.losses[entry.step] = entry.loss
    return notes


def _doubtful(saved: Sequence[Saved], steps: float | None, told: Mapping[int, Rates]) -> set[int]:
    """Return the steps whose rates would be others if the files counted from 0 and the scheduler stepped after saving.

    None of them where a file does not fit that, or where the optimizer's own count of its steps is the files'.
    """
    marks = [entry.mark for entry in saved if entry.mark is not None]
    counted = [None if entry.optimizer is None else steps_taken(entry.optimizer) for entry in saved]
    per_tick = steps_per_tick(marks, steps)
    if per_tick is None or all(taken == entry.step for taken, entry in zip(counted, saved, strict=True) if entry.step):
        return set()
    if any(mark.tick not in {mark.step // per_tick, (mark.step + 1) // per_tick} for mark in marks):
        return set()
    pairs = [(mark.step, told.get(mark.step), told.get(mark.step + 1)) for mark in marks]
    return {step for step, one, other in pairs if one is not None and other is not None and not close(one, other)}


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
