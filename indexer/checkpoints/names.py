"""From the names in a checkpoint to the names of the task's model, where wrappers stand between them.

    Lightning keeps a network under its attribute              net.0.weight            -> 0.weight
    DataParallel, torch.compile                                module._orig_mod.0.weight -> 0.weight
    a task wraps a Hugging Face model to return logits alone   bert.pooler.weight      -> net.bert.pooler.weight
    an adapter's file leaves out the adapter's own name        q.lora_A.weight         -> q.lora_A.default.weight

One prefix is found for all names at once: that under which the file has every weight that the model needs. Where two
have them all (a model and its moving average) nothing is chosen.
"""

from collections.abc import Collection, Mapping, Sequence

from torch import Tensor, nn

from indexer.errors import CheckpointError

_COMPILED = "_orig_mod."


def own_names(state: Mapping[str, Tensor], module: nn.Module, where: str) -> dict[str, str]:
    """Return the module's name of every weight of a whole checkpoint that is the module's; ``where`` names it.

    Weights outside of the prefix belong to another part of what was saved and have none; inside, all have one, also
    one that the module does not know.

    Raises:
        CheckpointError: two prefixes have every weight of the module.
    """
    plain = {name.replace(_COMPILED, ""): name for name in state}
    shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    wanted = [{name: shapes[name] for name in names} for names in tied_names(module)]
    prefix = _prefix({shorter: tuple(state[name].shape) for shorter, name in plain.items()}, wanted, where)
    found = {name: _renamed(shorter, prefix) for shorter, name in plain.items()}
    return {name: renamed for name, renamed in found.items() if renamed is not None}


def own_names_of_adapter(state: Mapping[str, Tensor], module: nn.Module, where: str) -> dict[str, str]:
    """Return the module's name of every weight of an adapter (LoRA and its kin) as PEFT saves it.

    Raises:
        CheckpointError: the module has no adapter, or not this one.
    """
    adapters = {name for part in module.modules() for name in getattr(part, "peft_config", None) or {}}
    if not adapters:
        raise CheckpointError(
            f"{where} is an adapter, and the task's model has none: return the model with it, "
            "peft.get_peft_model(base, config), from Task.model (pip install 'proponent[huggingface]')"
        )
    trainable = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    in_file = {name: _without_adapter(name, adapters) for name in module.state_dict()}
    wanted = [{in_file[name]: tuple(parameter.shape)} for name, parameter in trainable.items()]
    prefix = _prefix({name: tuple(tensor.shape) for name, tensor in state.items()}, wanted, where)
    by_file = {file: name for name, file in in_file.items()}
    found = {}
    for name in state:
        renamed = _renamed(name, prefix)
        if renamed not in by_file:
            raise CheckpointError(
                f"{where} has {name!r}, which the adapter of the task's model has not; was it made with another config?"
            )
        found[name] = by_file[renamed]
    return found


Shape = tuple[int, ...]
_Prefix = tuple[str, str]  # (to take off names of the file, to put before them)


def _renamed(name: str, prefix: _Prefix) -> str | None:
    """Return a file's name as the module has it; None where it does not begin with what is taken off."""
    off, before = prefix
    return before + name.removeprefix(off) if name.startswith(off) else None


def _prefix(state: Mapping[str, Shape], wanted: Sequence[Mapping[str, Shape]], where: str) -> _Prefix:
    """Return the prefix under which the file has one of each group of wanted names; none where there is no such one.

    Shapes decide only between several: a single one with other shapes is this model, changed, and worth saying so.

    Raises:
        CheckpointError: there are several of the same shapes.
    """

    def has_all(prefix: _Prefix) -> bool:
        return all(any(_in_file(name, prefix) in state for name in names) for names in wanted)

    def fits(prefix: _Prefix) -> bool:
        return all(any(state.get(_in_file(name, prefix) or "") == names[name] for name in names) for names in wanted)

    if not wanted or has_all(("", "")):
        return "", ""
    candidates = dict.fromkeys(candidate for name in wanted[0] for candidate in _candidates(name, state))
    whole = [candidate for candidate in candidates if has_all(candidate)]
    if len(whole) > 1:
        whole = [candidate for candidate in whole if fits(candidate)]
    if len(whole) > 1:
        told = " and ".join(repr(off) for off, _ in whole[:2])
        raise CheckpointError(
            f"{where} has every weight of the task's model twice, under {told}; save the one that is meant alone"
        )
    return whole[0] if whole else ("", "")


def _candidates(name: str, state: Collection[str]) -> list[_Prefix]:
    longer = [(other.removesuffix(name), "") for other in state if other.endswith(f".{name}")]
    parts = name.split(".")
    shorter = [("", ".".join(parts[:i]) + ".") for i in range(1, len(parts)) if ".".join(parts[i:]) in state]
    return longer + shorter


def _in_file(name: str, prefix: _Prefix) -> str | None:
    off, before = prefix
    return off + name.removeprefix(before) if name.startswith(before) else None


def _without_adapter(name: str, adapters: Collection[str]) -> str:
    """Return the name that PEFT writes for a module's name: without the adapter's, and as if nothing were wrapped.

    >>> _without_adapter("q.lora_A.default.weight", {"default"})
    'q.lora_A.weight'
    >>> _without_adapter("head.modules_to_save.default.bias", {"default"})
    'head.bias'
    """
    return ".".join(part for part in name.split(".") if part not in adapters and part != "modules_to_save")


def tied_names(module: nn.Module) -> list[list[str]]:
    """Return the names of the module's state, those of one tied parameter together."""
    holder = {name: id(parameter) for name, parameter in module.named_parameters(remove_duplicate=False)}
    found: dict[int | str, list[str]] = {}
    for name in module.state_dict():
        found.setdefault(holder.get(name, name), []).append(name)
    return list(found.values())
