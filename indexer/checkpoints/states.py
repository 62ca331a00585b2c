"""From checkpoint files to the states of one model: parameters and buffers by name, checked against the task."""

from collections.abc import Iterable

from torch import Tensor, nn

from indexer.checkpoints.files import load_into


def model_states(module: nn.Module, states: Iterable[tuple[str, dict[str, Tensor]]]) -> list[dict[str, Tensor]]:
    """Load each (where, state) into the module in turn and return its parameters and buffers, tied ones once.

    The module is left with the last checkpoint's weights.
    """
    found = []
    for where, state in states:
        load_into(module, state, where)
        found.append(own_state(module))
    return found


def own_state(module: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the module's parameters and buffers, tied ones once."""
    tensors = (*module.named_parameters(), *module.named_buffers())
    return {name: tensor.detach().clone() for name, tensor in tensors}
