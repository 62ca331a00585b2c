"""Learning rates of all steps, from what a scheduler's saved state tells of its schedule.

What an optimizer saves is the rate of the step that would have come next, because ``scheduler.step()`` comes before
saving; a linear decay then saves 0 at its end. A scheduler of PyTorch keeps its parameters, so that the same scheduler
can be made again and stepped along. ``LambdaLR`` keeps no function: nothing is guessed from it.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import nn
from torch.optim import lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from indexer.checkpoints.values import count

Groups = Sequence[Mapping[str, Any]]
SAME = 1e-9  # relative: rates of one schedule, in float64, after as many products as it has steps
_MOST = 1_000_000  # steps of a scheduler that are taken again: about ten seconds
_COMMON = {
    *("base_lrs", "last_epoch", "verbose", "_step_count", "_is_initial", "_get_lr_called_within_step", "_last_lr"),
}
_PLAIN: dict[frozenset[str], type[LRScheduler]] = {
    frozenset({"start_factor", "end_factor", "total_iters"}): lr_scheduler.LinearLR,
    frozenset({"factor", "total_iters"}): lr_scheduler.ConstantLR,
    frozenset({"step_size", "gamma"}): lr_scheduler.StepLR,
    frozenset({"milestones", "gamma"}): lr_scheduler.MultiStepLR,
    frozenset({"gamma"}): lr_scheduler.ExponentialLR,
    frozenset({"T_max", "eta_min"}): lr_scheduler.CosineAnnealingLR,
    frozenset({"total_iters", "power"}): lr_scheduler.PolynomialLR,
}

_RESTARTS = frozenset({"T_0", "T_i", "T_mult", "eta_min", "T_cur"})


def replay(state: Mapping[str, Any], groups: Groups) -> Float[np.ndarray, "t g"] | None:
    """Return the rates after 0, 1, ..., last_epoch steps of a scheduler, from its state and its optimizer's groups.

    None where its schedule is not known, or does not end at the rates that it saved.
    """
    found = _taken_again(state, groups)
    try:
        ends = [float(rate) for rate in state["_last_lr"]]
    except (TypeError, ValueError, LookupError):
        return None
    return found if found is not None and _ends_at(found, ends) else None


def is_known(state: Mapping[str, Any], groups: Groups) -> bool:
    """Whether a scheduler can be made again, even if its schedule does not end at the rates that it saved."""
    return _taken_again(state, groups) is not None


def _ends_at(found: Float[np.ndarray, "t g"], ends: Sequence[float]) -> bool:
    return len(ends) == found.shape[1] and np.allclose(found[-1], ends, rtol=SAME, atol=0)


def _taken_again(state: Mapping[str, Any], groups: Groups) -> Float[np.ndarray, "t g"] | None:
    last = count(state.get("last_epoch"))
    if last is None or last > _MOST:
        return None
    try:
        base = state["_schedulers"][0]["base_lrs"] if "_schedulers" in state else state["base_lrs"]
        parameters = [{"params": [nn.Parameter(torch.zeros(1))], "lr": float(rate)} for rate in base]
        optimizer = torch.optim.SGD(parameters, lr=0.0)
        scheduler = _made_again(state, optimizer, groups)
        if scheduler is None:
            return None
        found = np.empty((last + 1, len(parameters)))
        optimizer.step()  # without gradients, for nothing but the scheduler, which expects one before its own
        for step in range(last + 1):
            found[step] = [float(group["lr"]) for group in optimizer.param_groups]
            if step < last:
                scheduler.step()
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RuntimeError):
        return None  # values that no scheduler saves: as unknown as a schedule of another kind
    return found


def _made_again(state: Mapping[str, Any], optimizer: torch.optim.Optimizer, groups: Groups) -> LRScheduler | None:
    keys = frozenset(state.keys() - _COMMON)
    if keys == {"_milestones", "_schedulers"}:
        inner = [_made_again(part, optimizer, groups) for part in state["_schedulers"]]
        known = [part for part in inner if part is not None]
        made = lr_scheduler.SequentialLR(optimizer, known, list(state["_milestones"])) if known == inner else None
        return made
    if {"total_steps", "_schedule_phases", "_anneal_func_type"} <= keys:
        return _one_cycle(state, optimizer, groups)
    if keys == _RESTARTS:
        parameters = {key: state[key] for key in ("T_0", "T_mult", "eta_min")}
        return lr_scheduler.CosineAnnealingWarmRestarts(optimizer, **parameters)
    if keys not in _PLAIN:
        return None
    own = {key: state[key] for key in keys}
    if "milestones" in own:
        own["milestones"] = sorted(own["milestones"])
    scheduler = _PLAIN[keys](optimizer, **own)
    if "milestones" in own:
        vars(scheduler)["milestones"] = Counter(state["milestones"])
    return scheduler


def _one_cycle(state: Mapping[str, Any], optimizer: torch.optim.Optimizer, groups: Groups) -> LRScheduler:
    """Return OneCycleLR, which keeps its rates in the optimizer's groups."""
    phases, first = state["_schedule_phases"], groups[0]
    return lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=[float(group["max_lr"]) for group in groups],
        total_steps=state["total_steps"],
        pct_start=(phases[0]["end_step"] + 1) / state["total_steps"],
        anneal_strategy=state["_anneal_func_type"],
        cycle_momentum=False,
        div_factor=first["max_lr"] / first["initial_lr"],
        final_div_factor=first["initial_lr"] / first["min_lr"],
        three_phase=len(phases) == 3,
    )
