"""What training scripts wrap weights in: ``{"model_state_dict": {...}, "epoch": 3, ...}`` and its kin."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

MODEL_KEYS = ("model_state_dict", "state_dict", "model", "model_state", "net")


def unwrapped(document: Any) -> Mapping[str, Tensor] | None:
    """Return the tensors by name of a document that is a state dict or wraps one, or None where there is none.

    >>> import torch
    >>> unwrapped({"model": {"weight": torch.ones(1)}, "epoch": 3})
    {'weight': tensor([1.])}
    """
    if _is_state(document):
        return document  # type: ignore[no-any-return]
    if isinstance(document, Mapping):
        return next((document[key] for key in MODEL_KEYS if _is_state(document.get(key))), None)
    return None


def same_state(one: Mapping[Any, Any], two: Mapping[Any, Any]) -> bool:
    """Whether two states have the same names and tensors; NaN is the same as NaN, other values have one type."""
    return one.keys() == two.keys() and all(_same(one[name], two[name]) for name in one)


def averages(names: Sequence[str], cause: str) -> tuple[str, ...]:
    """Return what a reader of scores must know of files whose weights are averages; () where there is none.

    >>> averages(["last.pt"], "AveragedModel")
    ("the weights of 'last.pt' are averaged (AveragedModel): no step of the training was taken at them",)
    """
    listed = ", ".join(map(repr, names))
    return (
        (f"the weights of {listed} are averaged ({cause}): no step of the training was taken at them",) if names else ()
    )


def _same(one: Any, two: Any) -> bool:
    if not isinstance(one, Tensor) or not isinstance(two, Tensor):
        return type(one) is type(two)
    if one.shape != two.shape or one.dtype != two.dtype:
        return False
    return bool(((one == two) | ((one != one) & (two != two))).all())


def _is_state(document: Any) -> bool:
    return (
        isinstance(document, Mapping)
        and len(document) > 0
        and all(isinstance(name, str) and isinstance(value, Tensor) for name, value in document.items())
    )
