"""Adapters (LoRA and its kin) as PEFT saves them: their weights alone, under names without the adapter's own.

    q.lora_A.weight     -> q.lora_A.default.weight
    head.weight         -> head.modules_to_save.default.weight

What the file leaves out, the base, comes with the task's model, and so do the numbers that are in no weight, such as
alpha: ``adapter_config.json`` is held against the model's own.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
from torch import Tensor, nn

from indexer.checkpoints.names import Names
from indexer.checkpoints.prefix import find_prefix
from indexer.errors import CheckpointError

CONFIG = "adapter_config.json"
_COMPARED = (  # what changes outputs, or the base, without changing a shape
    *("peft_type", "r", "lora_alpha", "use_rslora", "use_dora", "alpha_pattern", "rank_pattern", "fan_in_fan_out"),
    *("bias", "modules_to_save", "init_lora_weights"),
)


def own_names_of_adapter(state: Mapping[str, Tensor], module: nn.Module, where: str) -> Names:
    """Match an adapter's weights with the active adapter of the module; ``where`` names the checkpoint.

    Raises:
        CheckpointError: the module has no adapter, several active ones, or not this one.
    """
    active, others = _adapters(module, where)
    trainable = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    in_file = {
        name: _without_adapter(name, active)
        for name in module.state_dict()
        if not set(name.split(".")) & others or active in name.split(".")
    }
    wanted = [{in_file[name]: tuple(parameter.shape)} for name, parameter in trainable.items() if name in in_file]
    prefix = find_prefix({name: tuple(tensor.shape) for name, tensor in state.items()}, wanted, where)
    by_file = {file: name for name, file in in_file.items()}
    found = {}
    for name in state:
        own = prefix.own(name)
        if own not in by_file:
            raise CheckpointError(
                f"{where} has {name!r}, which the adapter of the task's model has not; was it made with another config?"
            )
        found[name] = by_file[own]
    return Names(found)


def check_config(checkpoint: Path, module: nn.Module, where: str) -> None:
    """Hold the configuration beside an adapter's weights against that of the task's model.

    Raises:
        CheckpointError: it is missing, unreadable, or differs; the first difference is named.
    """
    file = checkpoint / CONFIG
    try:
        saved = orjson.loads(file.read_bytes())
    except (OSError, orjson.JSONDecodeError) as exc:
        raise CheckpointError(f"{where}: expected {CONFIG!r} beside the adapter's weights, in JSON: {exc}") from exc
    active, _ = _adapters(module, where)
    [config] = [part.peft_config[active] for part in _with_adapters(module)][:1]
    own = config.to_dict()
    for key in _COMPARED:
        if key in saved and key in own and _plain(saved[key]) != _plain(own[key]):
            raise CheckpointError(
                f"{where} was trained with {key} = {_plain(saved[key])!r}; the adapter of the task's model has "
                f"{_plain(own[key])!r}. Make it with the configuration that was saved, peft.PeftConfig.from_pretrained"
            )


def _with_adapters(module: nn.Module) -> list[Any]:
    return [part for part in module.modules() if getattr(part, "peft_config", None)]


def _adapters(module: nn.Module, where: str) -> tuple[str, set[str]]:
    """Return the name of the active adapter, and those of the others.

    Raises:
        CheckpointError: there is none, or several are active.
    """
    parts = _with_adapters(module)
    if not parts:
        raise CheckpointError(
            f"{where} is an adapter, and the task's model has none: return the model with it, "
            "peft.get_peft_model(base, config), from Task.model (pip install 'proponent[huggingface]')"
        )
    known = {name for part in parts for name in part.peft_config}
    active = parts[0].active_adapter
    if not isinstance(active, str):
        raise CheckpointError(
            f"{where} is an adapter, and the task's model has the active adapters {list(active)}; expected one"
        )
    return active, known - {active}


def _without_adapter(name: str, adapter: str) -> str:
    """Return the name that PEFT writes for a module's name.

    >>> _without_adapter("q.lora_A.default.weight", "default")
    'q.lora_A.weight'
    >>> _without_adapter("head.modules_to_save.default.bias", "default")
    'head.bias'
    >>> _without_adapter("q.lora_magnitude_vector.default.weight", "default")
    'q.lora_magnitude_vector'
    """
    plain = ".".join(part for part in name.split(".") if part not in (adapter, "modules_to_save"))
    return plain.removesuffix(".weight") if plain.endswith(".lora_magnitude_vector.weight") else plain


def _plain(value: Any) -> Any:
    """Return a value of a configuration as JSON would have it, sets in order."""
    if isinstance(value, set | list | tuple):
        return sorted(value, key=str)
    return getattr(value, "value", value)
