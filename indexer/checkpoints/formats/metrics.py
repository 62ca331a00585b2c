"""``metrics.csv`` of Lightning's CSVLogger: learning rates, losses and gradient norms, step by step.

A row's ``step`` counts from 0, and a rate in it was used in the step that it counts: row k is step k + 1 of the
optimizer. Under gradient accumulation a step has one row for each of its batches, with the same rates.
LearningRateMonitor's columns are ``lr-SGD``, or ``lr-SGD/pg1``, ``lr-SGD/pg2`` for parameter groups, by name where they
have one.
"""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from indexer.checkpoints.formats.notes import Notes
from indexer.checkpoints.values import count, measured
from indexer.errors import CheckpointError

METRICS = "metrics.csv"
_LOSSES = ("train_loss", "train_loss_step", "loss", "loss_step")  # the first that there is, else train...loss
_NORM = re.compile(r"grad_norm|grad_.*norm_total")
_OTHERS = ("momentum", "weight_decay")  # of LearningRateMonitor, when it is asked for more than rates


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns hold what; rates: one a parameter group, in the optimizer's order."""

    rates: tuple[str, ...]
    loss: str | None
    gradient_norm: str | None


def read_metrics(path: Path, groups: Sequence[str | None]) -> Notes:
    """Return what a file notes of the steps; groups: their names, None where one has none, [] where none are known.

    Raises:
        CheckpointError: it is no such file.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            columns = _columns(reader.fieldnames or (), groups)
            rows = [{key: value for key, value in row.items() if isinstance(key, str)} for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise CheckpointError(f"{str(path)!r} is not readable as CSV; move it away to do without its rates") from exc
    notes = Notes()
    for row in rows:
        step = count(_value(row.get("step")))
        if step is None:
            continue
        rates = tuple(rate for rate in (_value(row.get(name)) for name in columns.rates) if rate is not None)
        if rates and len(rates) == len(columns.rates):
            notes.rates[step + 1] = rates
        for series, column in ((notes.losses, columns.loss), (notes.gradient_norms, columns.gradient_norm)):
            value = None if column is None else _value(row.get(column))
            if value is not None:
                series[step + 1] = value
    return notes


def _columns(names: Sequence[str], groups: Sequence[str | None]) -> Columns:
    trained = [name for name in names if name.startswith("train") and name.removesuffix("_step").endswith("loss")]
    return Columns(
        rates=_rate_columns(names, groups),
        loss=next((name for name in (*_LOSSES, *trained) if name in names), None),
        gradient_norm=next((name for name in names if _NORM.fullmatch(name)), None),
    )


def _rate_columns(names: Sequence[str], groups: Sequence[str | None]) -> tuple[str, ...]:
    """Return one column a group, or () where they cannot be told apart."""
    found = [name for name in names if name.startswith("lr-") and not name.partition("/")[0].endswith(_OTHERS)]
    of = {name.partition("/")[2]: name for name in found}
    if len({name.partition("/")[0] for name in found}) != 1 or len(found) != len(of):
        return ()
    if len(found) == 1:
        return tuple(found) if len(groups) <= 1 else ()
    wanted = [name or f"pg{number}" for number, name in enumerate(groups or [None] * len(found), 1)]
    return tuple(of[name] for name in wanted) if sorted(wanted) == sorted(of) else ()


def _value(text: object) -> float | None:
    try:
        return measured(float(text)) if isinstance(text, str) and text else None
    except ValueError:
        return None
