"""eta, the weight of a checkpoint in a score, from the learning rates of its run. Two conventions, chosen, never mixed:

    learning_rate    the rate of the last step before the checkpoint
    interval         (sum of the rates of the steps since the previous checkpoint) / (steps an epoch)

``learning_rate`` is the weight of TracInCP as published: one visit of every example, at that rate. ``interval`` adds up
what the steps since the checkpoint before really did, so that it does not depend on how many checkpoints are kept, and
a schedule that ends at zero does not silence its last one. With one checkpoint an epoch and a constant rate both agree.

Every parameter group has its own eta: <grad l, grad h> becomes a sum over groups, each with its rate, as in one step
of SGD.
"""

import math
from collections.abc import Sequence

import numpy as np

from indexer.checkpoints.run import Run
from indexer.errors import LearningRateError

CONVENTIONS = ("learning_rate", "interval")
_RECORD = "record the run with indexer.CheckpointRecorder"


def etas(run: Run, convention: str) -> tuple[tuple[float, ...], ...]:
    """Return eta of each checkpoint of a run, by parameter group.

    Zero for a group is a rate of zero, which a frozen group may have as long as another group has one.

    Raises:
        LearningRateError: a rate is missing, negative, not finite, or zero for all groups; steps are not known.
    """
    by_name = {"learning_rate": _at_checkpoints, "interval": _over_intervals}
    if convention not in by_name:
        raise LearningRateError(f"eta = {convention!r}: expected one of {', '.join(map(repr, CONVENTIONS))}")
    return by_name[convention](run)


def approximate(run: Run, convention: str) -> str | None:
    """Say what of the etas is no rate that was noted, for the readers of scores; None where all are.

    Rates before the first noted step are said and not refused. Where a linear warm-up fills that time, the first
    checkpoint counts for up to twice as much as it should; but refusing would refuse every run of Trainer with a
    schedule of its own and its default log every 500 steps, most of which are not warming up there.
    """
    if convention == "learning_rate":
        by_origin: dict[str, list[str]] = {}
        for checkpoint in run.checkpoints:
            if checkpoint.rates_from is not None:
                by_origin.setdefault(checkpoint.rates_from, []).append(checkpoint.name)
        told = [
            f"{names[0] if len(names) == 1 else f'{len(names)} checkpoints'}: {o}" for o, names in by_origin.items()
        ]
        return f"eta of {'; '.join(told)}" if told else None
    last = run.checkpoints[-1].step
    steps = np.arange(1, (last or 0) + 1)
    noted = run.history.noted(steps)
    missing = int((~noted).sum())
    if missing == 0:
        return None
    known = run.history.steps[run.history.noted(run.history.steps)]
    found = f"eta: the rates of {missing:,} of {len(steps):,} steps were not noted"
    if len(known) == 0:
        return found
    before, after = min(int(known[0]) - 1, len(steps)), max(len(steps) - int(known[-1]), 0)
    between = "held since the step noted before" if run.history.held else "interpolated"
    parts = (
        (
            before,
            f"before step {known[0]:,}, the first noted, are taken as its, which a warm-up makes too large",
        ),
        (after, f"after step {known[-1]:,}, the last noted, are taken as its"),
        (missing - before - after, f"between noted steps are {between}"),
    )
    return f"{found}: {'; '.join(f'{count:,} {what}' for count, what in parts if count)}"


def _at_checkpoints(run: Run) -> tuple[tuple[float, ...], ...]:
    for number, checkpoint in enumerate(run.checkpoints):
        where, rates = run.where(number), checkpoint.learning_rates
        if not rates:
            raise LearningRateError(
                f"{where} has no learning_rate; write the rate of the last step before it into checkpoints.json, or "
                f"{_RECORD}"
            )
        if not all(0 <= rate < np.inf for rate in rates) or not any(rates):
            shown = rates[0] if len(rates) == 1 else list(rates)
            raise LearningRateError(
                f"{where} has learning_rate {shown!r}; expected a positive number: with zero the checkpoint would "
                "count for nothing. Choose `--eta interval` (the rates of the steps since the checkpoint before it), "
                "or leave the checkpoint out with `--steps`"
            )
    return tuple(checkpoint.learning_rates for checkpoint in run.checkpoints)


def _over_intervals(run: Run) -> tuple[tuple[float, ...], ...]:
    if run.steps_per_epoch is None:
        raise LearningRateError(
            f"eta = 'interval' needs the optimizer's steps an epoch, and {str(run.folder)!r} does not say them; write "
            'them into checkpoints.json ("steps_per_epoch": 71), or choose `--eta learning_rate`'
        )
    found, before = [], 0
    for number, checkpoint in enumerate(run.checkpoints):
        where = run.where(number)
        if checkpoint.step is None or checkpoint.step <= before:
            raise LearningRateError(
                f"{where} has step {checkpoint.step}; eta = 'interval' expects steps that grow from checkpoint to "
                "checkpoint. Note them, or choose `--eta learning_rate`"
            )
        rates = run.history.rates(np.arange(before + 1, checkpoint.step + 1))
        if rates.shape[1] == 0 or not np.isfinite(rates).all():
            raise LearningRateError(
                f"{where}: {str(run.folder)!r} notes no learning rate of the steps {before + 1} to {checkpoint.step}; "
                f"{'choose `--eta learning_rate`' if checkpoint.learning_rates else _RECORD}"
            )
        total = tuple(math.fsum(group) / run.steps_per_epoch for group in rates.T)  # a constant 0.1 stays 0.1
        if (rates < 0).any() or not any(total):
            raise LearningRateError(
                f"{where}: the learning rates of the steps {before + 1} to {checkpoint.step} add up to "
                f"{list(total)}; expected positive numbers. Leave the checkpoint out with `--steps`"
            )
        found.append(total)
        before = checkpoint.step
    return tuple(found)


def by_parameter(
    etas: Sequence[float], names: Sequence[Sequence[str]] | None, parameters: Sequence[str]
) -> dict[str, float]:
    """Return eta of every parameter: names has those of each group, or None where they are not known.

    Without names there is one rate for all.

    Raises:
        LearningRateError: a parameter of the gradient is in no group, or its group's rate is zero.
    """
    if names is None:
        return dict.fromkeys(parameters, etas[0])
    found = {name: eta for eta, group in zip(etas, names, strict=True) for name in group}
    for name in parameters:
        if not found.get(name):
            is_so = "has a learning rate of zero" if name in found else "is in no parameter group of the optimizer"
            raise LearningRateError(f"parameter {name!r} {is_so}; leave it out: `--parameters '!{name}'`")
    return {name: found[name] for name in parameters}
