"""What training scripts wrap weights in: ``{"model_state_dict": {...}, "epoch": 3, ...}`` and its kin."""

from collections.abc import Mapping
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


def _is_state(document: Any) -> bool:
    return (
        isinstance(document, Mapping)
        and len(document) > 0
        and all(isinstance(name, str) and isinstance(value, Tensor) for name, value in document.items())
    )
