"""identity: the gradient itself, block after block. Exact, and as large as the model."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from indexer.gradients.capture import Gradients
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

    def project(self, gradients: Gradients, matrices: Mapping[str, Tensor]) -> Float[Tensor, "b d"]:
        """The flattened blocks, concatenated."""
        return torch.cat([gradients[block.name].dense().flatten(1) for block in self.layout.blocks], dim=1)
