"""How many bytes a pass takes for one example, counted on a few: what a build plans its batches by."""

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
