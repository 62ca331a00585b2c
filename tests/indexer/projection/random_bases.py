"""Bases of pca that no sample led to: random, of every shape that fitting may leave, and the same at any time."""

import torch
from torch import Tensor

from indexer.gradients.layout import Layout
from indexer.projection.pca import KEPT, POOL, TURN

VECTORS = 5  # a side at most
HEAD, DIRECTIONS, TAIL = 8, 6, 3


def random_bases(layout: Layout, checkpoints: int) -> list[dict[str, Tensor]]:
    """Random numbers in place of eigenvectors; the last entry of each tail and the last direction are padding."""
    generator = torch.Generator().manual_seed(0)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    found = []
    for _ in range(checkpoints):
        here: dict[str, Tensor] = {}
        entries = 0
        for block in layout.blocks:
            r1, r2 = (min(size, VECTORS) for size in block.shape)
            here |= {f"{block.name}/left": randn(r1, block.shape[0]), f"{block.name}/right": randn(r2, block.shape[1])}
            entries += r1 * r2
        here[POOL] = torch.randperm(entries, generator=generator)[: HEAD + TAIL]
        here[TURN] = randn(DIRECTIONS, HEAD)
        here[TURN][-1] = 0
        here[KEPT] = torch.ones(TAIL)
        here[KEPT][-1] = 0
        found.append(here)
    return found
