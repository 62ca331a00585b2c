"""identity: the gradient itself, block after block. Exact, and as large as the model."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from indexer.gradients.block import BlockGradient
from indexer.gradients.layout import Layout


@dataclass(frozen=True, slots=True)
class Identity:
    """P = I; d is the number of trainable parameters."""

    layout: Layout

    @property
    def width(self) -> int:
        """All trainable parameters."""
        return self.layout.size

    def matrices(self, checkpoint: int) -> dict[str, Tensor]:
        """None needed."""
        return {}

    def piece(self, name: str, gradient: BlockGradient, matrices: Mapping[str, Tensor]) -> Float[Tensor, "b r"]:
        """The flattened block."""
        return gradient.dense().flatten(1)

    def join(self, pieces: Mapping[str, Tensor], matrices: Mapping[str, Tensor]) -> Float[Tensor, "b d"]:
        """The blocks, concatenated."""
        return torch.cat([pieces[block.name] for block in self.layout.blocks], dim=1)
