"""A survey of a task before any build: what would happen to each parameter, what it weighs and what it costs.

The model is probed as a build would probe it; then a few real training examples tell where the energy of the gradient
is, how many bytes each block would store, and how long each part of the pass takes on this machine.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from torch import Tensor

from indexer.building.plan import PLANNED_ON, plan_batch_size
from indexer.building.selection import selected
from indexer.building.source import options_of, warm_model
from indexer.building.spec import BuildSpec
from indexer.checkpoints.states import own_state, read_states
from indexer.gradients.at_checkpoints import ModelAtCheckpoints
from indexer.gradients.block import BlockGradient
from indexer.gradients.layout import Block
from indexer.gradients.memory import bytes_per_example
from indexer.methods.tracin_kind import TracInKind, fitted_projection
from indexer.projection.projections import Projection
from indexer.task import Task, read_rows

ROWS = 64  # training examples that are measured at most, evenly spaced
ROUNDS = 3  # of the timings: the middle one counts


@dataclass(frozen=True, slots=True)
class BlockSurvey:
    """One parameter block.

    energy: its share of the squared norm of the gradient, over the measured examples and checkpoints;
    numbers: what is stored of it a checkpoint, None where blocks share their numbers, or the bytes of a coded row;
    seconds: an example and checkpoint, for its part of the vector and its norm, and on a general path its gradient.
    """

    block: Block
    energy: float
    numbers: int | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Survey:
    """What a build of the task would do. Seconds are an example and checkpoint, on this machine.

    width: numbers of a vector a checkpoint, as fitted on the measured examples where bases are; coded_bytes: what rows
    are coded in, None where they are float32. trained: whether the weights are those of checkpoints, or the model's
    first ones; step_seconds: a plain training step (forward and backward) in the same batch; seconds: the pass that
    makes vectors and norms.
    """

    blocks: tuple[BlockSurvey, ...]
    left_out: tuple[str, ...]
    sequential: str | None
    checkpoints: int
    trained: bool
    rows: int
    width: int
    coded_bytes: int | None
    batch_size: int
    memory_format: str
    step_seconds: float
    seconds: float

    @property
    def vector_bytes(self) -> int:
        """Bytes that an example's vector takes at most, all checkpoints together."""
        return 4 * self.width * self.checkpoints if self.coded_bytes is None else self.coded_bytes

    @property
    def build_seconds(self) -> float:
        """What the pass over all training examples and checkpoints would take."""
        return self.seconds * self.rows * self.checkpoints


def survey(task: Task, checkpoints: Path | None, spec: BuildSpec) -> Survey:
    """Probe and measure a task at the checkpoints that the spec takes, or without any at the model's first weights.

    Raises what a build would raise at its start.
    """
    module = copy.deepcopy(task.model())
    states = (own_state(module),) if checkpoints is None else read_states(selected(spec)[0], module).states
    model = warm_model(task, module, states, options_of(spec))
    few = read_rows(task.train, range(min(PLANNED_ON, len(task.train))))
    batch_size = spec.batch_size or plan_batch_size(bytes_per_example(model, few))
    count = min(ROWS, batch_size, len(task.train))
    batch = read_rows(task.train, [i * len(task.train) // count for i in range(count)])
    projection = _projection(model, spec, batch)
    measured = [_measure(model, i, batch, projection) for i in range(len(model))]
    energies = {name: sum(m.energy[name] for m in measured) for name in measured[0].energy}
    total = sum(energies.values()) or 1.0
    apart = spec.coded_bytes is None and sum(measured[0].numbers.values()) == projection.width
    blocks = tuple(
        BlockSurvey(
            block,
            energies[block.name] / total,
            measured[0].numbers[block.name] if apart else None,
            median(m.block_seconds[block.name] for m in measured) / count,
        )
        for block in model.layout.blocks
    )
    return Survey(
        blocks=blocks,
        left_out=model.layout.left_out,
        sequential=model.layout.sequential,
        checkpoints=len(model),
        trained=checkpoints is not None,
        rows=len(task.train),
        width=projection.width,
        coded_bytes=spec.coded_bytes,
        batch_size=batch_size,
        memory_format="channels_last" if model.placement.channels_last else "contiguous",
        step_seconds=median(m.step for m in measured) / count,
        seconds=median(m.whole for m in measured) / count,
    )


def _projection(model: ModelAtCheckpoints, spec: BuildSpec, batch: tuple[Tensor, Tensor]) -> Projection:
    """Return the projection, fitted on the measured examples where a build fits it on more."""
    parameters = spec.method_parameters(len(model))
    parameters.pop("preconditioner", None)
    etas = [dict.fromkeys(model.parameters, 1.0)] * len(model)
    fitted = TracInKind().fit(model, etas, parameters, lambda: [batch], None)
    return fitted_projection(model, parameters, fitted.tensors)


@dataclass(frozen=True, slots=True)
class _Measured:
    """Of one checkpoint: seconds of a batch, and by block energy, numbers and seconds."""

    step: float
    whole: float
    energy: Mapping[str, float]
    numbers: Mapping[str, int]
    block_seconds: Mapping[str, float]


def _measure(
    model: ModelAtCheckpoints, checkpoint: int, batch: tuple[Tensor, Tensor], projection: Projection
) -> _Measured:
    matrices = {name: model.cast(matrix) for name, matrix in projection.matrices(checkpoint).items()}
    spent: dict[str, list[float]] = {block.name: [] for block in model.layout.blocks}

    def keep(name: str, gradient: BlockGradient) -> tuple[int, float]:
        def part() -> tuple[int, float]:
            made = [
                (projection.piece(name, part, matrices), part.square_norm().sum().item()) for part in gradient.parts()
            ]
            return made[0][0].shape[1], sum(energy for _, energy in made)

        seconds, (width, energy) = _timed(part)
        spent[name].append(seconds)
        return width, energy

    factors = replace(model.layout, blocks=tuple(b for b in model.layout.blocks if b.path in ("factors", "copies")))
    rounds = [
        (
            _timed(lambda: model.gradient_of_batch(checkpoint, batch))[0],
            _timed(lambda: model.each(checkpoint, batch, keep)),
            _timed(lambda: model.each(checkpoint, batch, keep, layout=factors))[0],
        )
        for _ in range(ROUNDS)
    ]
    kept: dict[str, tuple[int, float]] = rounds[0][1][1].kept
    whole = median(seconds for _, (seconds, _), _ in rounds)
    general = max(0.0, whole - median(seconds for _, _, seconds in rounds))
    formed = [block for block in model.layout.blocks if block.path in ("vmap", "loop")]
    size = sum(block.size for block in formed) or 1
    shares = {block.name: general * block.size / size for block in formed}
    return _Measured(
        step=median(step for step, _, _ in rounds),
        whole=whole,
        energy={name: energy for name, (_, energy) in kept.items()},
        numbers={name: numbers for name, (numbers, _) in kept.items()},
        block_seconds={name: shares.get(name, median(seconds)) for name, seconds in spent.items()},
    )


def _timed(run: Callable[[], Any]) -> tuple[float, Any]:
    start = perf_counter()
    found = run()
    return perf_counter() - start, found
