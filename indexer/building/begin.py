"""The beginning of a build: the source opened and probed, and the plan with everything else that decides the result."""

from dataclasses import dataclass, fields, replace
from typing import Any

import orjson
import safetensors.torch

from indexer.building.entries import block_entries, checkpoint_entries, ref_of, task_entry
from indexer.building.journal import PlanRecord
from indexer.building.plan import PLANNED_ON, machine, make_plan, versions
from indexer.building.selection import selected
from indexer.building.source import Source, open_source, options_of
from indexer.building.spec import BuildSpec
from indexer.checkpoints.step_sizes import StepSizes
from indexer.gradients.memory import bytes_per_example
from indexer.gradients.outputs import fixed_rows, probe_outputs
from indexer.index.manifest import Plan, ProbeEntry
from indexer.task import Task, read_rows


@dataclass(frozen=True, slots=True)
class Beginning:
    """What a build begins with.

    choice: how checkpoints were chosen; step_sizes: of the optimizer, where they precondition gradients; probe: the
    file of the probe outputs.
    """

    task: Task
    spec: BuildSpec
    source: Source
    choice: dict[str, Any] | None
    step_sizes: list[StepSizes] | None
    probe: bytes
    record: PlanRecord

    @property
    def plan(self) -> Plan:
        """The plan."""
        return self.record.plan


def begin(task: Task, spec: BuildSpec, plan: Plan | None) -> Beginning:
    """Open and probe the source, and plan; plan: that of a build to go on with, which is taken and not made again.

    Raises:
        BuildError: a choice of the spec cannot be, or there are too few training examples.
        CheckpointError: a checkpoint is missing, has no learning rate or does not fit the model.
        TaskError: the task or its model does not keep its contract.
    """
    run, choice = selected(spec)
    kept = spec if plan is None else replace(spec, memory_format=plan.memory_format)
    source = open_source(task, run, options_of(kept))
    made = _plan(task, spec, source) if plan is None else plan.model_copy(update={"versions": versions()})
    rows = fixed_rows(len(task.train))
    probe = safetensors.torch.save(probe_outputs(source.model, read_rows(task.train, rows)))
    record = PlanRecord(
        spec=_as_json(spec),
        plan=made,
        machine=machine(spec.device),
        task=task_entry(task),
        rows=rows_by_split(task),
        checkpoints=checkpoint_entries(source),
        blocks=block_entries(source.model.layout),
        probe=ProbeEntry(object=ref_of(probe), ids=[str(row) for row in rows]),
    )
    step_sizes = None if spec.preconditioner is None else source.step_sizes()
    return Beginning(task, spec, source, choice, step_sizes, probe, record)


def rows_by_split(task: Task) -> dict[str, int]:
    """Return how many examples each split of the task has."""
    return {name: len(examples) for name in ("train", "test") if (examples := task.split(name)) is not None}


def _plan(task: Task, spec: BuildSpec, source: Source) -> Plan:
    some = read_rows(task.train, range(min(len(task.train), PLANNED_ON)))
    return make_plan(
        spec,
        bytes_per_example=bytes_per_example(source.model, some),
        channels_last=source.model.placement.channels_last,
    )


def _as_json(spec: BuildSpec) -> dict[str, Any]:
    """Return the spec without the run's folder: it may be moved, and its checkpoints speak for themselves."""
    values = {field.name: getattr(spec, field.name) for field in fields(spec) if field.name != "checkpoints"}
    values["projection"] = dict(spec.projection)
    found: dict[str, Any] = orjson.loads(orjson.dumps(values))
    return found
