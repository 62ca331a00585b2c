"""From the checkpoints of a run to the states of a model: parameters and buffers by name, checked against the task."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from indexer.checkpoints.names import own_names, own_names_of_adapter, tied_names
from indexer.checkpoints.run import Run
from indexer.checkpoints.weights import load_adapter_into, load_into, read_weights
from indexer.errors import CheckpointError

Load = Callable[[nn.Module, Mapping[str, Tensor], str], None]
State = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class RunWeights:
    """The weights of a run's checkpoints.

    files: what each holds of the module, by the module's names; states: all parameters and buffers with them;
    renamed: the module's name of each name in the files.
    """

    files: tuple[State, ...]
    states: tuple[State, ...]
    renamed: Mapping[str, str]


def read_states(run: Run, module: nn.Module) -> RunWeights:
    """Read the weights of every checkpoint and load them into the module, in turn.

    Raises:
        CheckpointError: a checkpoint is unreadable or of another model, or only some are adapters.
    """
    adapters = [checkpoint.adapter for checkpoint in run.checkpoints]
    if len(set(adapters)) > 1:
        raise CheckpointError(
            f"{run.where(adapters.index(True))} is an adapter and {run.where(adapters.index(False))} is not; expected "
            "checkpoints of one kind"
        )
    files, renamed = [], dict[str, str]()
    for number, checkpoint in enumerate(run.checkpoints):
        raw, where = read_weights(checkpoint.path), run.where(number)
        names = (own_names_of_adapter if checkpoint.adapter else own_names)(raw, module, where)
        file = {own: raw[name] for name, own in names.items()}
        files.append(file if checkpoint.adapter else _with_tied(file, module))
        renamed |= names
    told = [run.where(number) for number in range(len(files))]
    states = model_states(module, zip(told, files, strict=True), load_adapter_into if adapters[0] else load_into)
    return RunWeights(tuple(files), tuple(states), renamed)


def model_states(module: nn.Module, states: Iterable[tuple[str, State]], load: Load = load_into) -> list[State]:
    """Load each (where, state) into the module in turn and return its parameters and buffers, tied ones once.

    What no checkpoint changes, such as the base of an adapter, is one tensor in all of them. The module is left with
    the last checkpoint's weights.
    """
    found: list[State] = []
    for where, state in states:
        load(module, state, where)
        here = own_state(module)
        if found:
            here = {name: found[0][name] if found[0][name].equal(tensor) else tensor for name, tensor in here.items()}
        found.append(here)
    return found


def own_state(module: nn.Module) -> State:
    """Return a copy of the module's parameters and buffers, tied ones once."""
    tensors = (*module.named_parameters(), *module.named_buffers())
    return {name: tensor.detach().clone() for name, tensor in tensors}


def _with_tied(file: State, module: nn.Module) -> State:
    """Give every name of a tied parameter its weights: many files keep them under one."""
    for names in tied_names(module):
        there = next((name for name in names if name in file), None)
        if there is not None:
            file |= {name: file[there] for name in names if name not in file}
    return file
