"""How many bytes a pass takes for one example, and gradients that are held: what a build plans by."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from math import prod

import torch
from torch import Tensor

from indexer.gradients.at_checkpoints import ModelAtCheckpoints

GENERAL_COPIES = 3  # of a gradient that vmap or the loop forms: the result, and what it is made of


def bytes_per_example(model: ModelAtCheckpoints, batch: tuple[Tensor, Tensor]) -> int:
    """Return what a training step saves, what capture keeps beside it, and the gradients of the general paths.

    An upper bound: capture saves less than a training step, and not all deltas are alive at once.
    """
    weights = {tensor.untyped_storage().data_ptr() for state in model.states for tensor in state.values()}
    saved: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        model.forward(0, batch)
    layout, size = model.layout, torch.finfo(model.dtype).bits // 8
    captured = 2 * sum(prod(site.output) for site in layout.sites)  # an output, and its delta
    formed = sum(block.size for block in layout.blocks if block.path != "factors")
    return sum(saved.values()) // len(batch[0]) + size * (captured + GENERAL_COPIES * formed)


def held_bytes(held: object) -> int:
    """Return the bytes of all tensors in gradients, as values or as factors, however deep they are.

    >>> held_bytes([{"block": torch.zeros(2, 3)}, {"block": (torch.zeros(1),)}])
    28
    """
    if isinstance(held, Tensor):
        return held.numel() * held.element_size()
    if isinstance(held, Mapping):
        return sum(map(held_bytes, held.values()))
    if isinstance(held, list | tuple):
        return sum(map(held_bytes, held))
    if is_dataclass(held):
        return sum(held_bytes(getattr(held, field.name)) for field in fields(held))
    return 0
