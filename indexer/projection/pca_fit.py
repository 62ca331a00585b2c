"""Fitting pca on a sample of training examples, in two passes over their gradients at every checkpoint.

Pass 1: the second moments of both sides of every block, and the norms. Their eigenvectors span the grid; a coordinate
(u, v) of a block has an energy of about lambda_u lambda_v over the block's own, which chooses the candidates.
Pass 2: the candidates' values. The energies of the sample choose the pool; an uncentred PCA turns its head; and the
bits of every coordinate are chosen over all checkpoints together, by how much of the score they save.

Every gradient counts with the weight 1 / ‖g‖ in the second moments. The highest scores are between a query and
training examples of large gradients: the best directions for products of one with the other are eigenvectors of
neither's moments, but of something between the raw moment (weight 1) and that of directions (weight 1 / ‖g‖^2).
With the exact eigenvectors of the neutral CNN and MLP, 240 of them fitted on 2,000 examples, this is worth 3 to 4
points of recall@10 of proponents and 1 to 3 of opponents over weight 1; weight 1 / ‖g‖^2 gives as much, and a lower
Pearson.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from indexer.errors import BuildError
from indexer.gradients.capture import Gradients
from indexer.gradients.layout import Layout
from indexer.gradients.moments import Side
from indexer.index.code import SCALE_BYTES, Code
from indexer.index.fit_code import Gains, code_of, coordinate_gains, joined
from indexer.projection.grid import Box, box_of, entries_of, places_of
from indexer.projection.pca import KEPT, POOL, TURN
from indexer.projection.side_basis import SideBasis

RANK = 64  # eigenvectors a side at most: 96 gain less than they cost (measured)
HELD = 2**17  # numbers of a block that is formed for all examples of a batch at once
HEAD, TAIL = 512, 3072  # entries of the pool, a checkpoint: turned, and as they are
CANDIDATES = 2  # entries of the grid for each one of the pool, for the sample's energies to choose from
SMALLEST = torch.finfo(torch.float32).tiny  # ‖g‖^2: below, squares lose digits, and nothing is relative to such a norm

Sample = Callable[[], Iterable[Gradients]]  # the sample's gradients at one checkpoint, batch after batch, each time
Bases = list[dict[str, Tensor]]
_SIDES: tuple[Side, Side] = ("left", "right")


@dataclass(frozen=True, slots=True)
class _Sides:
    """What pass 1 leaves of a checkpoint.

    bases: {block/left: [r1, m], block/right: [r2, n]}; candidates: entries of their grid; square_norms: ‖g‖^2 with eta.
    """

    bases: dict[str, Tensor]
    box: Box
    candidates: Int[Tensor, " k"]
    square_norms: Float[Tensor, " s"]


@dataclass(frozen=True, slots=True)
class _Turned:
    """What pass 2 leaves of a checkpoint.

    pool: entries of the grid, the head's h first; turn: the head's eigenvectors as rows; gains: of every coordinate.
    """

    pool: Int[Tensor, " p"]
    turn: Float[Tensor, "h h"]
    gains: Gains


@dataclass(frozen=True, slots=True)
class _Stored:
    """The coordinates of a checkpoint that get bits: directions of the head, entries of the tail from its first on."""

    head: Int[Tensor, " a"]
    tail: Int[Tensor, " z"]


def fit_pca(
    layout: Layout, samples: Sequence[Sample], roots: Sequence[Mapping[str, Tensor]], bytes: int, seed: int
) -> tuple[Bases, Code]:
    """Return the bases at every checkpoint, and how rows are coded in so many bytes.

    samples: of every checkpoint, the same examples in the same order; roots: the root of eta of every block there.

    Raises:
        BuildError: all gradients of the sample are zero, or one is not finite.
    """
    halves = 2 * (bytes - SCALE_BYTES)  # of bytes: as many coordinates as can be stored
    pool = HEAD if 2 * halves <= HEAD * len(samples) else HEAD + TAIL  # a tail is for more than half a head
    sides = [_sides(layout, sample, roots[i], pool, (i, seed)) for i, sample in enumerate(samples)]
    squares = torch.stack([side.square_norms for side in sides]).sum(0).cpu()
    norms = torch.where(squares >= SMALLEST, squares, 0).sqrt()
    if not norms.any():
        raise BuildError(
            "pca: the gradients of the sample are zero, or too small for float32: there is nothing to fit bases on; "
            "check the checkpoints, or take a larger sample"
        )
    turned = [_turned(samples[i], roots[i], side, norms, (pool, halves)) for i, side in enumerate(sides)]
    code = code_of(joined([at.gains for at in turned]), bytes)
    stored = [_stored(len(at.turn), of) for at, of in zip(turned, _by_checkpoint(code.bits, turned), strict=True)]
    return _bases(sides, turned, stored), _stored_code(code, turned, stored)


def _sides(layout: Layout, sample: Sample, root: Mapping[str, Tensor], pool: int, place: tuple[int, int]) -> _Sides:
    """Pass 1; pool: entries wanted of the grid; place: checkpoint and seed.

    Raises:
        BuildError: a gradient is not finite.
    """
    checkpoint, seed = place
    found = {
        block.name: tuple(
            SideBasis(side, size, RANK, seed=seed, place=(checkpoint, block.name, side))
            for side, size in zip(_SIDES, block.shape, strict=True)
        )
        for block in layout.blocks
    }
    energies = dict.fromkeys(found, 0.0)
    square_norms = []
    for found_here in sample():
        gradients = _settled(layout, found_here)
        squares = {name: root[name].square() * gradient.square_norm() for name, gradient in gradients.items()}
        square_norms.append(torch.stack(list(squares.values())).sum(0))
        if not square_norms[-1].isfinite().all():
            raise BuildError(
                f"pca: the gradient of a training example of the sample is NaN or too large at checkpoint "
                f"{checkpoint + 1}; leave out that checkpoint, or check the data"
            )
        weights = _weights(square_norms[-1])
        for name, gradient in gradients.items():
            energies[name] += float((weights * squares[name]).sum())
            for side in found[name]:
                side.add(gradient, weights)
    bases: dict[str, Tensor] = {}
    estimates, box = [], {}
    for name, (left, right) in found.items():
        (u, on_left), (v, on_right) = left.leading(), right.leading()
        estimates.append(_shares(on_left)[:, None] * _shares(on_right) * energies[name])
        bases |= {f"{name}/left": u, f"{name}/right": v}
        box[name] = (len(u), len(v))
    candidates = _leading(torch.cat([estimate.flatten() for estimate in estimates]), CANDIDATES * pool)
    return _trimmed(_Sides(bases, box, candidates, torch.cat(square_norms).double()))


def _turned(
    sample: Sample, root: Mapping[str, Tensor], sides: _Sides, norms: Float[Tensor, " s"], most: tuple[int, int]
) -> _Turned:
    """Pass 2; norms: over all checkpoints, which coded rows are relative to, or 0; most: of the pool, and stored."""
    pool, stored = most
    rows = []
    for gradients in sample():
        pieces = []
        for name in sides.box:
            u, v = (sides.bases[f"{name}/{side}"].to(root[name]) for side in _SIDES)
            parts = [part.sandwich(u, v).flatten(1) for part in gradients[name].parts()]
            pieces.append(root[name] * torch.cat(parts))
        rows.append(torch.cat(pieces, dim=1)[:, sides.candidates.to(pieces[0].device)].cpu())
    values = torch.cat(rows)
    weights = _weights(sides.square_norms).to(values)[:, None]
    order = _leading((weights * values.square()).sum(0), pool)
    head, tail = values[:, order[:HEAD]], values[:, order[HEAD:]]
    turn = _eigenvectors(head.T @ (weights * head)).to(values)
    known = norms > 0
    relative = torch.cat([head @ turn.T, tail], dim=1)[known] / norms[known].to(values)[:, None]
    return _Turned(sides.candidates[order], turn, _gains(relative, stored))


def _eigenvectors(moment: Float[Tensor, "h h"]) -> Float[Tensor, "h h"]:
    """Return them as rows, leading first."""
    vectors: Tensor = torch.linalg.eigh(moment.double())[1]
    return vectors.flip(1).T.contiguous()


def _gains(relative: Float[Tensor, "s p"], stored: int) -> Gains:
    """Return what bits buy; nothing for a coordinate beside which so many are larger: it cannot be stored."""
    largest = _leading(relative.square().sum(0), stored).sort().values
    some = coordinate_gains(relative[:, largest].numpy())
    found = Gains(*(np.zeros(relative.shape[1]) for _ in range(4)))
    for name in ("first", "second", "step4", "step8"):
        getattr(found, name)[largest.numpy()] = getattr(some, name)
    return found


def _settled(layout: Layout, gradients: Gradients) -> Gradients:
    """Form small blocks once where that is less work, and not for each product."""
    return {
        block.name: gradients[block.name].settled() if block.size <= HELD else gradients[block.name]
        for block in layout.blocks
    }


def _weights(square_norms: Float[Tensor, " s"]) -> Float[Tensor, " s"]:
    """1 / ‖g‖; a gradient of zero has no direction, and does not count."""
    return torch.where(square_norms > 0, square_norms, torch.inf).rsqrt()


def _shares(eigenvalues: Float[Tensor, " r"]) -> Float[Tensor, " r"]:
    return eigenvalues / eigenvalues.sum().clamp_min(torch.finfo(eigenvalues.dtype).tiny)


def _leading(energies: Float[Tensor, " k"], count: int) -> Int[Tensor, " most"]:
    """Return the places of the largest energies, largest first, equal ones in order."""
    return energies.argsort(descending=True, stable=True)[:count]


def _trimmed(sides: _Sides) -> _Sides:
    """Leave out the vectors that no candidate uses."""
    places = places_of(sides.candidates, sides.box)
    box = box_of([places])
    bases = {
        f"{name}/{side}": sides.bases[f"{name}/{side}"][:count]
        for name, counts in box.items()
        for side, count in zip(_SIDES, counts, strict=True)
    }
    return replace(sides, bases=bases, box=box, candidates=entries_of(places, box))


def _by_checkpoint(of: np.ndarray, turned: Sequence[_Turned]) -> list[Tensor]:
    """Cut what is known of all coordinates into the checkpoints'."""
    cuts = list(accumulate(len(at.pool) for at in turned))[:-1]
    return [torch.from_numpy(part) for part in np.split(of, cuts)]


def _stored(h: int, bits: UInt8[Tensor, " p"]) -> _Stored:
    return _Stored(bits[:h].nonzero()[:, 0], bits[h:].nonzero()[:, 0])


def _bases(sides: Sequence[_Sides], turned: Sequence[_Turned], stored: Sequence[_Stored]) -> Bases:
    """Bring the checkpoints to common shapes, and leave out what no stored coordinate uses."""
    h, a, z = max(len(at.turn) for at in turned), *_most(stored)
    pools = [
        places_of(torch.cat([at.pool[: len(at.turn)], at.pool[len(at.turn) :][kept.tail]]), side.box)
        for at, kept, side in zip(turned, stored, sides, strict=True)
    ]
    box = box_of(pools)
    found: Bases = []
    for at, kept, side, places in zip(turned, stored, sides, pools, strict=True):
        own = len(at.turn)
        here = {
            f"{name}/{which}": _padded(side.bases[f"{name}/{which}"][:count], (count,))
            for name, counts in box.items()
            for which, count in zip(_SIDES, counts, strict=True)
        }
        entries = entries_of(places, box)
        here[POOL] = torch.cat([_padded(entries[:own], (h,)), _padded(entries[own:], (z,))])
        here[TURN] = _padded(at.turn[kept.head], (a, h))
        here[KEPT] = _padded(torch.ones(len(kept.tail)), (z,))
        found.append({name: t if name == POOL else t.float().contiguous() for name, t in here.items()})
    return found


def _stored_code(code: Code, turned: Sequence[_Turned], stored: Sequence[_Stored]) -> Code:
    """Return the code of the coordinates as `_bases` leaves them."""
    a, z = _most(stored)
    bits, step = (
        torch.cat(
            [
                _padded(part, (most,))
                for at, kept, here in zip(turned, stored, _by_checkpoint(of, turned), strict=True)
                for part, most in ((here[: len(at.turn)][kept.head], a), (here[len(at.turn) :][kept.tail], z))
            ]
        ).numpy()
        for of in (code.bits, code.step)
    )
    return Code(bits, step)


def _most(stored: Sequence[_Stored]) -> tuple[int, int]:
    return max(len(kept.head) for kept in stored), max(len(kept.tail) for kept in stored)


def _padded(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return a tensor with zeros after it along its first axes, up to a shape."""
    sides = [pad for size, wanted in zip(tensor.shape, shape, strict=False) for pad in (wanted - size, 0)]
    return torch.nn.functional.pad(tensor, [0, 0] * (tensor.ndim - len(shape)) + sides[::-1])
