"""``checkpoints.json``: Proponent's own listing of a run, written by its recorder or by hand.

    {"checkpoints": [{"file": "epoch-01.safetensors", "learning_rate": 0.05, "step": 71, "epoch": 1,
                      "train_loss": 0.61, "optimizer_state": "epoch-01.optimizer.pt",
                      "history": "epoch-01.history.safetensors"}, ...],
     "optimizer": {"name": "adam", "betas": [0.9, 0.999], "eps": 1e-8},
     "steps_per_epoch": 71,
     "parameter_groups": [["head.weight", "head.bias"], ["body.weight", "body.bias"]]}

Only ``file`` is required of an entry, and what the chosen eta needs. ``learning_rate`` is the rate of the last step
before the checkpoint; with several parameter groups ``learning_rates`` has one for each, and ``parameter_groups`` the
parameters' names. ``history`` names safetensors of the steps since the checkpoint before: steps [s] (int64),
learning_rates [s, g], losses [s] and gradient_norms [s] (float64), NaN where nothing was noted. Other keys are ignored.
A recording may begin in the middle of a training: then its first history begins with a later step than 1.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import safetensors
import safetensors.numpy

from indexer.atomic import write_atomically
from indexer.checkpoints.history import SERIES, History, from_series, history
from indexer.checkpoints.optimizer import read_optimizer
from indexer.checkpoints.run import Checkpoint, ParameterGroup, Run
from indexer.errors import CheckpointError

LISTING = "checkpoints.json"
KIND = "a folder with checkpoints.json"
HISTORY = ".history.safetensors"  # what the names of the recorder's own files end with, beside those of weights
OPTIMIZER = ".optimizer.pt"
PENDING = f"since-last-checkpoint{HISTORY}"  # steps that no checkpoint has yet


def read_listing(folder: Path) -> Run:
    """Return the run that a folder lists.

    Raises:
        CheckpointError: an unreadable listing, a listed file that does not exist, or a value of another kind.
    """
    listing = folder / LISTING
    try:
        document = orjson.loads(listing.read_bytes())
        entries = document["checkpoints"]
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError) as exc:
        raise CheckpointError(f'{str(listing)!r}: expected {{"checkpoints": [...]}} in JSON') from exc
    if not isinstance(entries, list) or not entries:
        raise CheckpointError(f"{str(listing)!r}: expected at least one checkpoint, found none")
    named = [
        (entry, _named(folder, entry, f"checkpoint {number} of {len(entries)}"))
        for number, entry in enumerate(entries, 1)
    ]
    checkpoints = tuple(_checkpoint(folder, entry, where) for entry, where in named)
    groups = _groups(document.get("parameter_groups"), str(listing))
    _check_groups(checkpoints, groups, [where for _, where in named])
    return Run(
        folder=folder,
        kind=KIND,
        checkpoints=checkpoints,
        history=_history(folder, named) or _history_of(checkpoints),
        groups=groups,
        steps_per_epoch=_positive(document.get("steps_per_epoch"), repr(str(listing))),
        optimizer=read_optimizer(document.get("optimizer"), repr(str(listing))),
    )


def write_listing(folder: Path, entries: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> None:
    """Write the listing: the entries, and what is known of the run as a whole (optimizer, groups, steps an epoch)."""
    document = {"checkpoints": list(entries), **{key: value for key, value in about.items() if value is not None}}
    write_atomically(folder / LISTING, orjson.dumps(document, option=orjson.OPT_INDENT_2))


def write_history(path: Path, noted: History) -> None:
    """Write the steps of one entry."""
    write_atomically(path, safetensors.numpy.save({name: getattr(noted, name) for name in SERIES}))


def _named(folder: Path, entry: Any, where: str) -> str:
    if not isinstance(entry, dict) or not isinstance(entry.get("file"), str):
        raise CheckpointError(f"{where} in {str(folder / LISTING)!r} names no 'file'")
    where = f"{where} ({entry['file']!r})"
    if not (folder / entry["file"]).is_file():
        raise CheckpointError(f"{where} does not exist in {str(folder)!r}; restore the file or take it off {LISTING}")
    return where


def _checkpoint(folder: Path, entry: Mapping[str, Any], where: str) -> Checkpoint:
    step = _number(entry, "step", where)
    if step is not None and step != int(step):
        raise CheckpointError(f"{where} has step {step!r}; expected a whole number")
    return Checkpoint(
        path=folder / entry["file"],
        learning_rates=_rates(entry, where),
        step=None if step is None else int(step),
        epoch=_number(entry, "epoch", where),
        train_loss=_number(entry, "train_loss", where),
        optimizer_state=_beside(folder, entry, "optimizer_state", where),
    )


def _rates(entry: Mapping[str, Any], where: str) -> tuple[float, ...]:
    """Return the rates as they are listed; whether they can be used is for `indexer.checkpoints.eta` to say.

    Raises:
        CheckpointError: one is no number.
    """
    several = entry.get("learning_rates")
    if several is None:
        rate = _number(entry, "learning_rate", where)
        return () if rate is None else (rate,)
    if not isinstance(several, list) or not several:
        raise CheckpointError(f"{where} has learning_rates {several!r}; expected a list, one rate a parameter group")
    rates = [_number({"learning_rate": rate}, "learning_rate", where) for rate in several]
    if None in rates:
        raise CheckpointError(f"{where} has learning_rates {several!r}; expected a number for every parameter group")
    return tuple(rate for rate in rates if rate is not None)


def _groups(value: Any, where: str) -> tuple[ParameterGroup, ...]:
    if value is None:
        return ()
    flat = [name for group in value for name in group] if isinstance(value, list) else [None]
    if not all(isinstance(name, str) for name in flat) or len(set(flat)) != len(flat):
        raise CheckpointError(
            f"{where!r}: expected parameter_groups as lists of parameter names, each name once, found {value!r}"
        )
    return tuple(ParameterGroup(names=tuple(group)) for group in value)


def _check_groups(checkpoints: Sequence[Checkpoint], groups: Sequence[ParameterGroup], where: Sequence[str]) -> None:
    for checkpoint, place in zip(checkpoints, where, strict=True):
        count = len(checkpoint.learning_rates)
        if count > 1 and count != len(groups):
            raise CheckpointError(
                f"{place} has {count} learning_rates and {LISTING} {len(groups)} parameter_groups; expected the names "
                "of the parameters of each group, in the order of the rates"
            )


def _history(folder: Path, named: Sequence[tuple[Mapping[str, Any], str]]) -> History | None:
    """Return the steps of all entries, one after the other; None where none is listed.

    Raises:
        CheckpointError: they overlap, or a file is not a history.
    """
    read = [
        _read_history(path, where)
        for entry, where in named
        if (path := _beside(folder, entry, "history", where)) is not None
    ]
    if not read:
        return None
    widths = sorted({part["learning_rates"].shape[1] for part in read})
    if len(widths) > 1:
        raise CheckpointError(
            f"{str(folder / LISTING)!r}: the histories of its checkpoints have the rates of {widths[0]} and of "
            f"{widths[1]} parameter groups; expected one number of groups in a run"
        )
    found = from_series({name: np.concatenate([part[name] for part in read]) for name in SERIES})
    if (np.diff(found.steps) <= 0).any():
        raise CheckpointError(f"{str(folder / LISTING)!r}: the histories of its checkpoints do not follow each other")
    return found


def _read_history(path: Path, where: str) -> dict[str, np.ndarray]:
    try:
        part = safetensors.numpy.load_file(path)
        s, g = part["learning_rates"].shape
        for name, shape in (("steps", (s,)), ("learning_rates", (s, g)), ("losses", (s,)), ("gradient_norms", (s,))):
            kind = np.int64 if name == "steps" else np.float64
            if part[name].shape != shape or part[name].dtype != kind:
                raise ValueError(f"{name} is {part[name].dtype} {part[name].shape}")
    except (safetensors.SafetensorError, OSError, KeyError, ValueError) as exc:
        raise CheckpointError(
            f"{where}: history {path.name!r} is not as {LISTING} keeps it ({exc}); take its name off the listing"
        ) from exc
    return part


def _history_of(checkpoints: Sequence[Checkpoint]) -> History:
    """Return what the entries themselves note, where there is no history."""
    known = [c for c in checkpoints if c.step is not None]
    groups = {len(c.learning_rates) for c in known if c.learning_rates}
    rated = len(groups) == 1 and all(c.learning_rates for c in known)
    steps = [c.step or 0 for c in known]
    if any(b <= a for a, b in pairwise(steps)):
        return history([])
    return history(steps, [list(c.learning_rates) for c in known] if rated else None, [c.train_loss for c in known])


def _beside(folder: Path, entry: Mapping[str, Any], key: str, where: str) -> Path | None:
    name = entry.get(key)
    if name is None:
        return None
    if not isinstance(name, str) or not (folder / name).is_file():
        raise CheckpointError(
            f"{where} has {key} {name!r}, which does not exist in {str(folder)!r}; restore the file or take "
            f"the entry off {LISTING}"
        )
    return folder / name


def _number(entry: Mapping[str, Any], key: str, where: str) -> float | None:
    value = entry.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise CheckpointError(f"{where} has {key} {value!r}; expected a number")
    return float(value)


def _positive(value: Any, where: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise CheckpointError(f"{where} has steps_per_epoch {value!r}; expected a positive number")
    return float(value)
