"""A folder of files that a training script of one's own saved: bare state dicts, or dictionaries around them.

A dictionary is as in PyTorch's tutorial: {"model_state_dict": ..., "optimizer_state_dict": ..., "epoch": 3}. The
rate of the last step comes from the schedule where the scheduler's state tells it, from a number that was saved, or,
where no scheduler was saved, from the optimizer. A bare state dict tells none.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from indexer.checkpoints.formats.notes import Notes, Rates, rates_at
from indexer.checkpoints.formats.schedule import replay
from indexer.checkpoints.formats.ticks import Mark, scheduled
from indexer.checkpoints.groups import parameter_groups
from indexer.checkpoints.history import History
from indexer.checkpoints.optimizer_state import find_optimizer_state, recognise, saved_rates
from indexer.checkpoints.run import Checkpoint, Run
from indexer.checkpoints.values import at, count, measured, number
from indexer.checkpoints.weights_only import peek_weights_only
from indexer.checkpoints.wrapped import MODEL_KEYS, unwrapped
from indexer.errors import CheckpointError

KIND = "a folder of checkpoint files"
SUFFIXES = (".pt", ".pth", ".bin", ".safetensors", ".ckpt")
SCHEDULER_KEYS = ("scheduler_state_dict", "lr_scheduler_state_dict", "lr_scheduler", "scheduler")
_NOT_WEIGHTS = re.compile(r"training_args\.bin|(optimizer|scheduler|scaler|rng_state.*)\.(pt|pth|bin)")
_ADVICE = "save `model.state_dict()`, or {'model_state_dict': ..., 'optimizer_state_dict': ..., 'step': ...}"


@dataclass(frozen=True, slots=True)
class _Saved:
    path: Path
    step: int | None = None
    epoch: float | None = None
    loss: float | None = None
    rates: Rates = ()  # under a key of their own
    optimizer: Mapping[str, Any] | None = None
    scheduler: Mapping[str, Any] | None = None


def plain_files(folder: Path) -> list[Path]:
    """Return the files in a folder that may be checkpoints, by name with numbers in their order."""
    files = [path for path in folder.iterdir() if path.suffix in SUFFIXES and path.is_file()]
    return sorted((path for path in files if not _NOT_WEIGHTS.fullmatch(path.name)), key=_natural)


def read_plain(folder: Path) -> Run:
    """Return the run of a folder's files: in the order of their steps or epochs if all have one, else of their names.

    Raises:
        CheckpointError: a file cannot be read, holds no weights, or is of the same step as another.
    """
    saved = _ordered([_saved(path) for path in plain_files(folder)])
    steps_per_epoch = _steps_per_epoch(saved)
    rates = [_rates(entry, stepped=_stepped(saved)) for entry in saved]
    noted = _history(saved, rates, steps_per_epoch)
    counts = {len(found) for found, _ in rates if found}
    caveats: tuple[str, ...] = ()
    if len(counts) > 1:
        caveats = ("the checkpoints have different numbers of parameter groups: their learning rates are not known",)
        rates = [((), None) for _ in rates]
    last = next((entry.optimizer for entry in reversed(saved) if entry.optimizer is not None), None)
    return Run(
        folder=folder,
        kind=KIND,
        checkpoints=tuple(_checkpoint(*pair, noted) for pair in zip(saved, rates, strict=True)),
        history=noted,
        groups=() if last is None else parameter_groups(last),
        steps_per_epoch=steps_per_epoch,
        optimizer=None if last is None else recognise(last),
        caveats=caveats,
    )


def _natural(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d{1,18})", path.name)]


def _saved(path: Path) -> _Saved:
    if path.suffix == ".safetensors":
        return _Saved(path)
    document = peek_weights_only(path, _ADVICE)
    weights = unwrapped(document)
    if weights is None:
        raise CheckpointError(
            f"{str(path)!r} holds no weights: expected tensors by name, or a dictionary with them under "
            f"{', '.join(map(repr, MODEL_KEYS))}; move it away, or {_ADVICE}"
        )
    if weights is document:
        return _Saved(path)
    rates = _first(document, "lr", "learning_rate")
    rates = [number(rate) for rate in (rates if isinstance(rates, list | tuple) else [rates])]
    return _Saved(
        path,
        step=count(_first(document, "step", "global_step", "iteration")),
        epoch=number(document.get("epoch")),
        loss=measured(_first(document, "train_loss", "loss")),
        rates=tuple(rate for rate in rates if rate is not None),
        optimizer=find_optimizer_state(document),
        scheduler=next((document[key] for key in SCHEDULER_KEYS if isinstance(document.get(key), Mapping)), None),
    )


def _first(document: Mapping[str, Any], *keys: str) -> Any:
    return next((document[key] for key in keys if document.get(key) is not None), None)


def _ordered(saved: list[_Saved]) -> list[_Saved]:
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


def _steps_per_epoch(saved: Sequence[_Saved]) -> float | None:
    """Return the steps between two epochs, if they are the same between all and from the start on.

    Scripts count epochs from 0 or from 1; that makes no difference here.
    """
    known = [(entry.step, entry.epoch) for entry in saved if entry.step and entry.epoch is not None]
    found = {(b - a) / (f - e) for (a, e), (b, f) in pairwise(known) if f != e}
    if len(known) < len(saved) or len(found) != 1:
        return None
    steps, (step, epoch) = found.pop(), known[0]
    return steps if step in {steps * epoch, steps * (epoch + 1)} else None


def _stepped(saved: Sequence[_Saved]) -> int:
    """Return 1 where ``scheduler.step()`` came before saving, as in most scripts, else 0.

    A scheduler that has not stepped at the first checkpoint shows the other order.
    """
    ticks = [count(at(entry.scheduler, "last_epoch")) for entry in saved if entry.scheduler is not None]
    return 0 if 0 in ticks else 1


def _rates(saved: _Saved, stepped: int) -> tuple[Rates, str | None]:
    """Return the rates of the last step, and how they are known."""
    if saved.optimizer is not None and saved.scheduler is not None:
        found = replay(saved.scheduler, saved.optimizer["param_groups"])
        if found is not None and len(found) > stepped:
            order = "before" if stepped else "after"
            return tuple(found[-1 - stepped].tolist()), f"from its scheduler, taken to have stepped {order} saving"
    if saved.rates:
        return saved.rates, "as the file has it under a key of its own"
    if saved.optimizer is not None and saved.scheduler is None:
        return saved_rates(saved.optimizer), "the optimizer as saved"
    return (), None


def _history(saved: Sequence[_Saved], rates: Sequence[tuple[Rates, str | None]], steps: float | None) -> History:
    """Return what is known by step: all rates where the scheduler counts the file's steps or its epochs."""
    notes = Notes()
    known = [(entry, found) for entry, (found, _) in zip(saved, rates, strict=True) if entry.step]
    if len(known) < len(saved) or len({len(found) for _, found in known}) > 1:
        return notes.history()
    for entry, found in known:
        step = entry.step or 0
        if found:
            notes.rates[step] = found
        if entry.loss is not None:
            notes.losses[step] = entry.loss
    marks = [
        Mark(entry.step or 0, saved_rates(entry.optimizer), entry.optimizer["param_groups"], entry.scheduler)
        for entry, _ in known
        if entry.optimizer is not None and entry.scheduler is not None
    ]
    if len(marks) == len(saved):
        notes.rates.update(scheduled(marks, steps, {}))
    return notes.history()


def _checkpoint(saved: _Saved, rates: tuple[Rates, str | None], noted: History) -> Checkpoint:
    found, origin = rates
    exact = rates_at(noted, saved.step) if saved.step and saved.scheduler is not None and found else None
    if exact is not None and exact[1] is None:
        found, origin = exact
    return Checkpoint(
        path=saved.path,
        learning_rates=found,
        step=saved.step,
        epoch=saved.epoch,
        train_loss=saved.loss,
        optimizer_state=None if saved.optimizer is None else saved.path,
        rates_from=origin,
    )
