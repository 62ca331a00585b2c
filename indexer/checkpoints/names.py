"""From the names in a checkpoint to the names of the task's model, where wrappers stand between them.

    Lightning keeps a network under its attribute              net.0.weight              -> 0.weight
    DataParallel, torch.compile                                module._orig_mod.0.weight -> 0.weight
    a task wraps a Hugging Face model to return logits alone   bert.pooler.weight        -> net.bert.pooler.weight

One prefix is found for all names at once: that under which the file has every weight that the model needs. Where two
have them all (a model and its moving average) nothing is chosen; where another has most of them, it is said.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from indexer.checkpoints.prefix import find_prefix, likeness

_COMPILED = "_orig_mod."


@dataclass(frozen=True, slots=True)
class Names:
    """The module's name of each weight of a file that is the module's, and what a reader must know of the match."""

    own: Mapping[str, str]
    caveat: str | None = None


def own_names(state: Mapping[str, Tensor], module: nn.Module, where: str) -> Names:
    """Match a whole checkpoint; ``where`` names it.

    Weights outside of the prefix belong to another part of what was saved and have no name; inside, all have one, also
    one that the module does not know.

    Raises:
        CheckpointError: two prefixes have every weight of the module.
    """
    plain = {name.replace(_COMPILED, ""): name for name in state}
    shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    wanted = [{name: shapes[name] for name in names} for names in tied_names(module)]
    prefix = find_prefix({shorter: tuple(state[name].shape) for shorter, name in plain.items()}, wanted, where)
    found = {name: prefix.own(shorter) for shorter, name in plain.items()}
    other = likeness(plain, wanted, prefix)
    return Names(
        {name: own for name, own in found.items() if own is not None},
        None if other is None else f"the weights are those under {prefix.off!r}; {other!r} in the same files is alike",
    )


def tied_names(module: nn.Module) -> list[list[str]]:
    """Return the names of the module's state, those of one tied parameter together."""
    holder = {name: id(parameter) for name, parameter in module.named_parameters(remove_duplicate=False)}
    found: dict[int | str, list[str]] = {}
    for name in module.state_dict():
        found.setdefault(holder.get(name, name), []).append(name)
    return list(found.values())
