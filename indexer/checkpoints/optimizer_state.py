"""What ``optimizer.state_dict()`` tells of a run: its rates, its parameter groups, which optimizer it was.

It is found in a file of its own, in a training script's dictionary, or in a checkpoint of Lightning.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from indexer.checkpoints.optimizer import KEPT, Optimizer
from indexer.checkpoints.values import Rates, count, number
from indexer.checkpoints.weights_only import peek_weights_only
from indexer.errors import CheckpointError

OPTIMIZER_KEYS = ("optimizer_state_dict", "optimizer", "optim")
_SIGNATURES = {  # keys of a group that only this one of PyTorch's optimizers has
    "adam": {"betas", "eps", "amsgrad"},
    "nadam": {"betas", "eps", "momentum_decay"},
    "sgd": {"momentum", "dampening", "nesterov"},
    "rmsprop": {"alpha", "centered"},
    "adagrad": {"lr_decay", "initial_accumulator_value"},
}
_ENTRIES = {  # what they keep for a parameter, where others that have the same keys keep something else
    "adam": {"step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq"},
    "sgd": {"momentum_buffer"},
}


def read_optimizer_state(path: Path, advice: str) -> Mapping[str, Any]:
    """Return the state in a file, wherever in it; its tensors are read when they are used.

    Raises:
        CheckpointError: the file is unreadable, or holds no state of an optimizer; ``advice`` says how to save it.
    """
    state = find_optimizer_state(peek_weights_only(path, advice))
    if state is None:
        raise CheckpointError(f"optimizer state {path.name!r} is no state of an optimizer; {advice}")
    return state


def find_optimizer_state(document: Any) -> Mapping[str, Any] | None:
    """Return the state that a document is or wraps, or None: Lightning's is the first of its optimizers."""
    if not isinstance(document, Mapping):
        return None
    several = document.get("optimizer_states")
    inner = [document.get(key) for key in OPTIMIZER_KEYS]
    candidates = [document, *inner, *(several[:1] if isinstance(several, list) else [])]
    return next((candidate for candidate in candidates if _is_state(candidate)), None)


def saved_rates(state: Mapping[str, Any]) -> Rates:
    """Return the learning rates in a state, by group: those of the step that would have come next, mostly."""
    return tuple(number(group["lr"]) or 0.0 for group in state["param_groups"])


def recognise(state: Mapping[str, Any]) -> Optimizer | None:
    """Return the optimizer that a state is from, by what only that one keeps; None for one that is not known.

    Adam and AdamW keep the same, and since PyTorch 2.7 a flag; without it they are told apart by nothing and are called
    adamw, which makes no difference to their step sizes.
    """
    group, entries = state["param_groups"][0], state["state"].values()
    kept = {key for entry in entries for key in entry}
    for name, keys in _SIGNATURES.items():
        if keys <= group.keys() and kept <= _ENTRIES.get(name, kept):
            if name == "adam" and group.get("decoupled_weight_decay", True):
                name = "adamw"
            return Optimizer(name, {key: group[key] for key in KEPT if key in group})
    return None


def steps_taken(state: Mapping[str, Any]) -> int | None:
    """Return how many steps an optimizer took by its own count, as Adam keeps one; None for one that does not count."""
    counts = [count(entry.get("step")) for entry in state["state"].values()]
    return max((steps for steps in counts if steps is not None), default=None)


def unknown_optimizer(state: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what a reader of scores must know where an optimizer is not known; () for a known one.

    One that keeps nothing of a parameter takes plain steps: there is nothing to know.
    """
    kept = sorted({key for entry in state["state"].values() for key in entry if isinstance(key, str)})
    if recognise(state) is not None or not kept:
        return ()
    return (
        f"trained with an optimizer that is not known, which keeps {', '.join(kept)}; scores account for plain "
        "gradient steps",
    )


def _is_state(state: Any) -> bool:
    if not isinstance(state, Mapping) or not {"state", "param_groups"} <= state.keys():
        return False
    entries, groups = state["state"], state["param_groups"]
    return (
        isinstance(entries, Mapping)
        and all(isinstance(entry, Mapping) for entry in entries.values())
        and isinstance(groups, list)
        and len(groups) > 0
        and all(_is_group(group) for group in groups)
    )


def _is_group(group: Any) -> bool:
    return (
        isinstance(group, Mapping)
        and number(group.get("lr")) is not None
        and isinstance(group.get("params"), list)
        and all(isinstance(parameter, int) for parameter in group["params"])
        and isinstance(group.get("param_names", []), list)
    )
