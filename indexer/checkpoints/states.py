"""From the checkpoints of a run to the states of a model: parameters and buffers by name, checked against the task."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from indexer.checkpoints.adapters import check_config, own_names_of_adapter
from indexer.checkpoints.names import own_names, tied_names
from indexer.checkpoints.run import Run
from indexer.checkpoints.weights import load_adapter_into, load_into, read_weights
from indexer.errors import CheckpointError

Load = Callable[[nn.Module, Mapping[str, Tensor], str], None]
State = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class RunWeights:
    """The weights of a run's checkpoints.

    files: what each holds of the module, by the module's names; states: all parameters and buffers with them;
    renamed: the module's name of each name in the files; caveats: what a reader must know of the match.
    """

    files: tuple[State, ...]
    states: tuple[State, ...]
    renamed: Mapping[str, str]
    caveats: tuple[str, ...] = ()


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
    files, renamed, caveats = [], dict[str, str](), dict[str, None]()
    for number, checkpoint in enumerate(run.checkpoints):
        raw, where = read_weights(checkpoint.path), run.where(number)
        if checkpoint.adapter:
            check_config(checkpoint.path, module, where)
        names = (own_names_of_adapter if checkpoint.adapter else own_names)(raw, module, where)
        file = {own: raw[name] for name, own in names.own.items()}
        files.append(file if checkpoint.adapter else _with_tied(file, module, where))
        renamed |= names.own
        caveats |= {} if names.caveat is None else {names.caveat: None}
    told = [run.where(number) for number in range(len(files))]
    states = model_states(module, zip(told, files, strict=True), load_adapter_into if adapters[0] else load_into)
    return RunWeights(tuple(files), tuple(states), renamed, tuple(caveats))


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


def _with_tied(file: State, module: nn.Module, where: str) -> State:
    """Give every name of a tied parameter its weights: many files keep them under one.

    Raises:
        CheckpointError: the names have other weights each: the trained model did not tie them.
    """
    for names in tied_names(module):
        there = [name for name in names if name in file]
        other = [name for name in there[1:] if not file[name].equal(file[there[0]])]
        if other:
            raise CheckpointError(
                f"{where} has other weights for {there[0]!r} than for {other[0]!r}, which the task's model ties; "
                "was it trained without?"
            )
        file |= {name: file[there[0]] for name in names if there and name not in file}
    return file
