"""The source of a build: a task's model at the checkpoints of a run, probed, and everything cheap checked first."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from indexer.building.examples import check_labels
from indexer.building.spec import BuildSpec
from indexer.checkpoints.eta import by_parameter, etas
from indexer.checkpoints.formats.listing import LISTING
from indexer.checkpoints.groups import OwnParameters, check_count, group_names, names_are_known
from indexer.checkpoints.optimizer import PRECONDITIONED
from indexer.checkpoints.run import Run
from indexer.checkpoints.states import RunWeights, own_state, read_states
from indexer.checkpoints.step_sizes import StepSizes, adam_step_sizes
from indexer.errors import BuildError, CheckpointError, TaskError
from indexer.gradients.at_checkpoints import ModelAtCheckpoints, Placement
from indexer.gradients.layout import convolves_in_two_dimensions
from indexer.gradients.probe import PROBE_ROWS, check_runs, probe, runs_alike
from indexer.task import Task, content_hash, read_rows


@dataclass(frozen=True, slots=True)
class Source:
    """A task's model, warm at all checkpoints of a run, and the checkpoints' own tensors.

    etas: of each checkpoint, for every parameter of the gradient.
    """

    model: ModelAtCheckpoints
    run: Run
    weights: RunWeights
    etas: tuple[Mapping[str, float], ...]

    def step_sizes(self) -> list[StepSizes]:
        """Return Adam's step sizes at each checkpoint.

        Raises:
            CheckpointError: a checkpoint has no optimizer state, or one of another optimizer.
        """
        own = _own_parameters(self.model, self.weights.renamed)
        found = []
        known = self.run.optimizer
        for number, checkpoint in enumerate(self.run.checkpoints):
            where = self.run.where(number)
            if known is not None and known.name not in PRECONDITIONED:
                raise CheckpointError(
                    f"{where} was trained with {known.name!r}; the preconditioner 'adam' is for Adam and AdamW"
                )
            if checkpoint.optimizer_state is None:
                raise CheckpointError(
                    f"{where} has no optimizer_state; the preconditioner 'adam' needs it at every checkpoint: save "
                    f"optimizer.state_dict() beside it and name the file in {LISTING}"
                )
            found.append(adam_step_sizes(checkpoint.optimizer_state, own))
        return found


@dataclass(frozen=True, slots=True)
class Options:
    """How a model is to be kept, and its checkpoints weighted.

    parameters: patterns of those whose gradient is wanted, none for all; memory_format ``auto`` chooses what pays;
    eta: how checkpoints are weighted, see `indexer.checkpoints.eta`.
    """

    dtype: torch.dtype = torch.float32
    parameters: tuple[str, ...] = ()
    memory_format: str = "contiguous"
    device: str = "cpu"
    eta: str = "learning_rate"


PLAIN = Options()


def options_of(spec: BuildSpec) -> Options:
    """Return what a spec says of its model."""
    return Options(torch.float32, tuple(spec.parameters), spec.memory_format, spec.device, spec.eta)


def open_source(task: Task, run: Run, options: Options = PLAIN) -> Source:
    """Read the checkpoints, probe the task's model at the last one, and keep it warm at all of them.

    Raises:
        BuildError: there are too few training examples, a pattern fits no parameter, or there is no such device.
        LearningRateError: a checkpoint has no usable rate for the convention that the options choose.
        TaskError: data, labels, codec and model do not fit together.
    """
    by_group = etas(run, options.eta)
    module = copy.deepcopy(task.model())  # the task may hand out one model again and again
    weights = read_states(run, module)
    if run.checkpoints[0].adapter:
        _check_base(task, weights)
    model = warm_model(task, module, weights.states, options)
    return Source(model, run, weights, _etas_by_parameter(run, by_group, model, weights.renamed))


def _check_base(task: Task, weights: RunWeights) -> None:
    """Make sure that what an adapter's files leave out is the same each time the task makes its model.

    Raises:
        TaskError: it is not.
    """
    again = own_state(task.model())
    for name, tensor in again.items():
        if name not in weights.files[0] and not weights.states[0][name].equal(tensor):
            raise TaskError(
                f"the checkpoints are adapters, and {name!r} of their base is another each time task.model() is "
                "called; load the base that they were trained on in it"
            )


def _etas_by_parameter(
    run: Run, by_group: Sequence[Sequence[float]], model: ModelAtCheckpoints, renamed: Mapping[str, str]
) -> tuple[Mapping[str, float], ...]:
    wanted = [name for block in model.layout.blocks for name in block.parameters]
    where = f"the optimizer of {str(run.folder)!r}"
    own, names = _own_parameters(model, renamed), None
    if any(len(set(rates)) > 1 for rates in by_group) or names_are_known(run.groups, own):
        names = group_names(run.groups, own, where)
    else:
        check_count(run.groups, len(wanted), where)
    return tuple(by_parameter(rates, names, wanted) for rates in by_group)


def _own_parameters(model: ModelAtCheckpoints, renamed: Mapping[str, str]) -> OwnParameters:
    shapes = {name: tuple(model.states[0][name].shape) for name in model.parameters}
    return OwnParameters(shapes, [name for name, trains in model.parameters.items() if trains], renamed)


def warm_model(
    task: Task, module: nn.Module, states: Sequence[dict[str, Tensor]], options: Options
) -> ModelAtCheckpoints:
    """Probe the task's model, a module of its own, and keep it warm at the states; it has the weights of the last.

    Raises:
        BuildError: there are too few training examples, a pattern fits no parameter, or there is no such device.
        TaskError: data, labels, codec and model do not fit together.
    """
    if len(task.train) < PROBE_ROWS:
        raise BuildError(f"expected at least {PROBE_ROWS} training examples, found {len(task.train)}")
    on = find_device(options.device)
    batch = read_rows(task.train, range(PROBE_ROWS))
    _check_data(task, batch)
    layout = probe(module, task.loss, batch, chosen_parameters(module, options.parameters))

    def placed(placement: Placement) -> ModelAtCheckpoints:
        return ModelAtCheckpoints(module, states, task.loss, layout, dtype=options.dtype, placement=placement)

    model = placed(Placement(on))
    asked = options.memory_format
    if asked == "channels_last" or (asked == "auto" and convolves_in_two_dimensions(layout)):
        faster = placed(Placement(on, channels_last=True))
        model = faster if asked == "channels_last" or runs_alike(faster, model, batch) else model
    check_runs(model, batch)
    _check_outputs(task, model.outputs(0, batch[0]))
    return model


def chosen_parameters(module: nn.Module, patterns: Sequence[str]) -> list[str] | None:
    """Return the trainable parameters that fit ``encoder.*`` and not ``!pooler.*``; None where there is no pattern.

    Raises:
        BuildError: a pattern fits none, with the names that there are.
    """
    trainable = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
    first = {id(parameter): name for name, parameter in module.named_parameters()}
    names = module.named_parameters(remove_duplicate=False)  # a tied weight may be chosen by any of its names
    aliases = {name: first[id(parameter)] for name, parameter in names if first[id(parameter)] in trainable}

    def fitting(pattern: str) -> set[str]:
        found = {aliases[name] for name in aliases if fnmatchcase(name, pattern)}
        if not found:
            shown = ", ".join(map(repr, list(aliases)[:8])) + (", …" if len(aliases) > 8 else "")
            raise BuildError(f"parameters: {pattern!r} fits no trainable parameter of the model; they are {shown}")
        return found

    if not patterns:
        return None
    chosen = [fitting(pattern) for pattern in patterns if not pattern.startswith("!")] or [set(trainable)]
    without = [fitting(pattern[1:]) for pattern in patterns if pattern.startswith("!")]
    return [name for name in trainable if name in set.union(*chosen) and name not in set().union(*without)]


def find_device(name: str) -> torch.device:
    """Return the device of that name.

    Raises:
        BuildError: this machine has none of that name.
    """
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as exc:  # unknown, absent, or a PyTorch without CUDA
        raise BuildError(f"device {name!r} cannot be used here: {str(exc).splitlines()[0]}; use 'cpu'") from exc
    return device


def _check_data(task: Task, batch: tuple[Tensor, Tensor]) -> None:
    """Check what a look at a few training examples, and at the targets of the test split, can show.

    Raises:
        TaskError: with what to do.
    """
    if content_hash(*batch) != content_hash(*read_rows(task.train, range(PROBE_ROWS))):
        raise TaskError("task.train gives another input when the same row is read again; leave random augmentation out")
    check_labels(task, "train", range(PROBE_ROWS), batch[1])
    for row in range(0 if task.test is None else len(task.test)):
        check_labels(task, "test", [row], read_rows(task.split("test") or (), [row])[1])
    try:
        task.codec.preview(batch[0][0])
    except (RuntimeError, ValueError, TypeError) as exc:
        shape = tuple(batch[0].shape[1:])
        raise TaskError(
            f"the codec {task.codec.describe()} cannot draw a training input of shape {shape}: {exc}"
        ) from exc


def _check_outputs(task: Task, outputs: Tensor) -> None:
    """Labels name the outputs of a classifier, one an output.

    Raises:
        TaskError: they do not.
    """
    if task.labels is None:
        return
    if outputs.ndim != 2:
        raise TaskError(
            f"the task has labels, so outputs of shape [b, {len(task.labels)}] were expected; "
            f"found {tuple(outputs.shape)}"
        )
    if outputs.shape[1] != len(task.labels):
        counts = f"{outputs.shape[1]} outputs and the task {len(task.labels)} labels"
        raise TaskError(f"the model has {counts}; expected one label an output")
