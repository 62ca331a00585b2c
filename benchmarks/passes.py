"""The passes that `benchmarks.gradients` times, all on one batch, and the check of what they return.

A plain step is zero_grad, forward, mean of the losses and backward: in eval and in train mode (dropout off, so that it
does the same work), contiguous and channels_last. Ours are at one checkpoint, over all parameters:
capture          factors of every block are made and dropped: the floor
rank1            and projected by rank1, which needs no data
rank1 + norms    what a build runs for every batch: squared norms beside it
norms            exact self-influence alone
vmap + dense     without factors: vmap(grad) of 16 examples at a time, times a dense matrix [256, p]
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from benchmarks.models import Examples, Workload
from indexer.gradients.at_checkpoints import ModelAtCheckpoints, Placement
from indexer.gradients.block import BlockGradient
from indexer.gradients.layout import Layout
from indexer.methods.tracin import TracIn
from indexer.projection.projections import Projection, make_projection
from indexer.recipes.mnist import loss
from tests.reference import in_blocks, loop_gradients_by_name

VERIFIED = 8  # examples
PROJECTION = {"name": "rank1", "numbers": 1024, "seed": 0}
OURS = ("capture", "rank1", "rank1 + norms", "norms")
DENSE, DENSE_BATCH, DENSE_WIDTH, DENSE_CHUNK = "vmap + dense", 64, 256, 16
DENSE_LARGEST = 2**30  # bytes of its matrix

Pass = Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Subject:
    """A model, a batch and the matrices: all that is there before a pass."""

    work: Workload
    layout: Layout
    batch: Examples
    model: ModelAtCheckpoints
    projection: Projection
    matrices: dict[str, Tensor]
    dense: Tensor | None  # [d, p]


def prepare(work: Workload, layout: Layout, b: int) -> Subject:
    """Return the subject of one batch size."""
    state = {name: t.detach().clone() for name, t in (*work.module.named_parameters(), *work.module.named_buffers())}
    module, placement = copy.deepcopy(work.module), Placement(channels_last=work.channels_last)
    model = ModelAtCheckpoints(module, [state], loss, layout, dtype=torch.float32, placement=placement)
    projection = make_projection(layout, PROJECTION)
    dense = None
    if b == DENSE_BATCH and 4 * DENSE_WIDTH * layout.size <= DENSE_LARGEST:
        dense = torch.randn(DENSE_WIDTH, layout.size, generator=torch.Generator().manual_seed(0)) / DENSE_WIDTH**0.5
    return Subject(work, layout, work.first(b), model, projection, projection.matrices(0), dense)


def plain_steps(work: Workload, batch: Examples) -> dict[str, Pass]:
    """Return the variants of a training step, each on a copy of the model."""
    formats = {"contiguous": torch.contiguous_format}
    if batch[0].ndim == 4:
        formats["channels_last"] = torch.channels_last
    found: dict[str, Pass] = {}
    for mode in ("eval", "train"):
        for name, memory_format in formats.items():
            module = _without_dropout(copy.deepcopy(work.module)).train(mode == "train")
            module = module.to(memory_format=memory_format)  # type: ignore[call-overload]  # its stub lacks this one
            inputs = batch[0].clone(memory_format=memory_format) if batch[0].ndim == 4 else batch[0]

            def step(module: nn.Module = module, inputs: Tensor = inputs) -> None:
                module.zero_grad(set_to_none=True)
                torch.autograd.backward(loss(module(inputs), batch[1]).mean())

            found[f"step {mode} {name}"] = step
    return found


def our_passes(subject: Subject) -> dict[str, Pass]:
    """Return the ways of `OURS`, and the dense one where it has its matrix."""
    model, projection, batch = subject.model, subject.projection, subject.batch
    method = TracIn(model, [dict.fromkeys(model.parameters, 1.0)], projection)

    def capture() -> None:
        model.each(0, batch, lambda name, gradient: None)

    def rank1() -> Tensor:
        def keep(name: str, gradient: BlockGradient) -> Tensor:
            return projection.piece(name, gradient, subject.matrices)

        return projection.join(model.each(0, batch, keep).kept, subject.matrices)

    def norms() -> Tensor:
        kept = model.each(0, batch, lambda name, gradient: gradient.square_norm()).kept
        return torch.stack(list(kept.values())).sum(0)

    passes: list[Pass] = [capture, rank1, lambda: method.train_rows(batch), norms]
    found = dict(zip(OURS, passes, strict=True))
    if subject.dense is not None:
        found[DENSE] = lambda: _dense_vectors(subject)
    return found


def verify(subject: Subject, passes: Mapping[str, Pass]) -> dict[str, float]:
    """Return the largest relative error over the first examples of what the passes return, by way.

    The loop's gradients are multiplied in float64 by matrices that are drawn anew.
    """
    inputs, targets = (part[:VERIFIED] for part in subject.batch)
    by_name = loop_gradients_by_name(subject.work.module, loss, inputs, targets)
    matrices = {name: matrix.double() for name, matrix in subject.projection.matrices(0).items()}
    pieces = []
    for name, gradient in in_blocks(subject.layout, by_name).items():
        left, right = matrices.get(f"{name}/left"), matrices.get(f"{name}/right")
        piece = gradient if left is None else left @ gradient
        pieces.append((piece if right is None else piece @ right.T).flatten(1))
    vectors = torch.cat(pieces, dim=1)
    gradients = torch.cat([gradient.flatten(1) for gradient in by_name.values()], dim=1)
    square_norms = gradients.square().sum(1, keepdim=True)
    rows = passes["rank1 + norms"]()
    errors = {
        "rank1": _error(passes["rank1"](), vectors),
        "rank1 + norms: vectors": _error(rows.vectors, vectors),
        "rank1 + norms: norms": _error(rows.self_influence, square_norms),
        "norms": _error(passes["norms"]()[:, None], square_norms),
    }
    if subject.dense is not None:
        errors[DENSE] = _error(passes[DENSE](), gradients.float() @ subject.dense.T)
    return errors


def _dense_vectors(subject: Subject) -> Tensor:
    module, dense = subject.work.module, subject.dense
    assert dense is not None
    state = {name: t.detach() for name, t in (*module.named_parameters(), *module.named_buffers())}
    chosen = {name: state[name] for name, _ in module.named_parameters()}

    def alone(chosen: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return loss(functional_call(module, {**state, **chosen}, (x[None],)), y[None])[0]

    rows = []
    for x, y in zip(*(torch.split(part, DENSE_CHUNK) for part in subject.batch), strict=True):
        gradients = vmap(grad(alone), in_dims=(None, 0, 0))(chosen, x, y)
        rows.append(torch.cat([gradient.flatten(1) for gradient in gradients.values()], dim=1) @ dense.T)
    return torch.cat(rows)


def _without_dropout(module: nn.Module) -> nn.Module:
    for child in module.modules():
        if isinstance(child, nn.Dropout):
            child.p = 0.0
        elif isinstance(child, nn.MultiheadAttention):
            child.dropout = 0.0
    return module


def _error(found: Tensor, expected: Tensor) -> float:
    """Return the largest relative error of a row, over the rows that are expected."""
    difference = (found[: len(expected)].double() - expected.double()).norm(dim=1)
    return float((difference / expected.double().norm(dim=1)).max())
