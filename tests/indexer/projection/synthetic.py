"""Gradients that nobody's model made, of any layout and spectrum, and what an index would keep of them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from indexer.gradients.block import DenseGradient
from indexer.gradients.capture import Gradients
from indexer.gradients.layout import Block, Layout
from indexer.index.code import Code
from indexer.projection.pca import Pca
from indexer.projection.pca_fit import fit_pca
from indexer.projection.projections import project
from tests.indexer.projection.small_network import in_double

Values = Mapping[str, Tensor]  # [b, m, n] by block, at one checkpoint


def layout_of(*shapes: tuple[int, int]) -> Layout:
    """Blocks of these shapes, named by number."""
    return Layout(tuple(Block(f"{i}", (f"{i}",), shape, "factors", "linear") for i, shape in enumerate(shapes)), ())


def decaying(layout: Layout, b: int, decay: float, dtype: torch.dtype = torch.float64) -> Values:
    """Gradients whose entries fall off along both sides as 1 / j^decay: energy is in few directions, none is zero."""

    def weights(size: int) -> Tensor:
        return torch.arange(1, size + 1, dtype=torch.float64) ** -decay

    return {
        block.name: (
            weights(block.shape[0])[:, None]
            * weights(block.shape[1])
            * torch.randn(b, *block.shape, dtype=torch.float64)
            * torch.rand(b, 1, 1, dtype=torch.float64)
        ).to(dtype)
        for block in layout.blocks
    }


def in_batches(values: Values, sizes: Sequence[int]) -> Callable[[], Iterator[Gradients]]:
    """A sample of these gradients at one checkpoint, in batches of these sizes."""

    def sample() -> Iterator[Gradients]:
        start = 0
        for size in sizes:
            yield {name: DenseGradient(of[start : start + size]) for name, of in values.items()}
            start += size

    return sample


@dataclass(frozen=True, slots=True)
class Fit:
    """A fitted pca, its code, and the roots of eta that it was fitted with."""

    layout: Layout
    bases: list[dict[str, Tensor]]
    code: Code
    roots: list[dict[str, Tensor]]

    def vectors(self, checkpoints: Sequence[Values]) -> Tensor:
        """Return the vectors of gradients, checkpoints side by side, in float64."""
        projection = Pca(self.layout, self.bases)
        return torch.cat(
            [
                project(
                    projection,
                    {name: DenseGradient(of.double()) for name, of in values.items()},
                    in_double(projection.matrices(i)),
                    in_double(self.roots[i]),
                )
                for i, values in enumerate(checkpoints)
            ],
            dim=1,
        )

    def decoded(self, checkpoints: Sequence[Values]) -> Tensor:
        """Return what an index would read of them again: coded relative to the true norm."""
        norms = torch.sqrt(self.exact(checkpoints, checkpoints).diagonal())
        records = self.code.encode(self.vectors(checkpoints).numpy(), norms.numpy())
        return torch.from_numpy(self.code.decode(records)).double()

    def exact(self, here: Sequence[Values], there: Sequence[Values]) -> Tensor:
        """Return the exact scores [b, q]: eta <g, g'>, summed over checkpoints and blocks."""
        products = [
            root[name].double().square() * (one[name].double().flatten(1) @ other[name].double().flatten(1).T)
            for one, other, root in zip(here, there, self.roots, strict=True)
            for name in one
        ]
        return torch.stack(products).sum(0)


def fit_of(layout: Layout, checkpoints: Sequence[Values], bytes: int, etas: Sequence[float] = (), seed: int = 0) -> Fit:
    """Fit to gradients at some checkpoints, in two batches; etas of 1 where none are given."""
    dtype = next(iter(checkpoints[0].values())).dtype
    b = len(next(iter(checkpoints[0].values())))
    roots = [
        {block.name: torch.tensor(eta, dtype=dtype).sqrt() for block in layout.blocks}
        for eta in etas or [1.0] * len(checkpoints)
    ]
    samples = [in_batches(values, (b // 2, b - b // 2)) for values in checkpoints]
    bases, code = fit_pca(layout, samples, roots, bytes, seed)
    return Fit(layout, bases, code, roots)
