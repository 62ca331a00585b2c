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
_HARMLESS = frozenset(  # keys that change no output of an adapter whose names and shapes fit; all others are compared
    (
        "auto_mapping base_model_name_or_path revision inference_mode task_type peft_version runtime_config "
        "target_modules target_parameters exclude_modules layers_to_transform layers_pattern modules_to_save "
        "lora_dropout dropout module_dropout rank_dropout rank_dropout_scale vera_dropout init_weights "
        "loftq_config eva_config corda_config ensure_weight_tying megatron_config megatron_core "
        "total_step tinit tfinal deltaT beta1 beta2 orth_reg_weight target_r"
    ).split()
)
_WRAPPER = "base_model.model."  # of a PeftModel; a model of transformers with add_adapter is its own
_START = "init_lora_weights"
_MOVES_BASE = ("pissa", "olora", "loftq", "corda", "eva")  # starts that change the base; of others nothing is left


def own_names_of_adapter(state: Mapping[str, Tensor], module: nn.Module, where: str) -> Names:
    """Match an adapter's weights with the active adapter of the module; ``where`` names the checkpoint.

    Raises:
        CheckpointError: the module has no adapter, several active ones, or not this one.
    """
    _, active, others = _adapters(module, where)
    trainable = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    in_file = {
        name: _without_adapter(name, active)
        for name in module.state_dict()
        if not set(name.split(".")) & others or active in name.split(".")
    }
    wanted = [{in_file[name]: tuple(parameter.shape)} for name, parameter in trainable.items() if name in in_file]
    if not wanted:
        raise CheckpointError(
            f"{where} is an adapter, and that of the task's model is frozen; make it trainable: "
            "peft.PeftModel.from_pretrained(base, folder, is_trainable=True)"
        )
    wrapped = any(_WRAPPER in name for name in in_file)
    shorter = {name: name if wrapped else name.removeprefix(_WRAPPER) for name in state}
    prefix = find_prefix({shorter[name]: tuple(tensor.shape) for name, tensor in state.items()}, wanted, where)
    by_file = {file: name for name, file in in_file.items()}
    by_file |= {name.replace(f".{active}.", "."): name for name in in_file if ".modules_to_save." in name}
    found = {}
    for name in state:
        own = prefix.own(shorter[name])
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
    config, _, _ = _adapters(module, where)
    own = config.to_dict()
    for key in sorted((saved.keys() & own.keys()) - _HARMLESS):
        before, now = _plain(key, saved[key]), _plain(key, own[key])
        if before != now:
            raise CheckpointError(
                f"{where} was trained with {key} = {before!r}; the adapter of the task's model has {now!r}. Make it "
                "as it was saved: peft.PeftModel.from_pretrained(base, folder, is_trainable=True)"
            )


def _adapters(module: nn.Module, where: str) -> tuple[Any, str, set[str]]:
    """Return the configuration and the name of the active adapter, and the names of the others.

    Raises:
        CheckpointError: there is none, or several are active.
    """
    parts: list[Any] = [part for part in module.modules() if getattr(part, "peft_config", None)]
    if not parts:
        raise CheckpointError(
            f"{where} is an adapter, and the task's model has none: return the model with it, "
            "peft.get_peft_model(base, config), from Task.model (pip install 'proponent[huggingface]')"
        )
    known = {name for part in parts for name in part.peft_config}
    # a PeftModel names its active adapter, a model of transformers with add_adapter has a method for them
    named = parts[0].active_adapter if hasattr(parts[0], "active_adapter") else parts[0].active_adapters()
    active = [named] if isinstance(named, str) else list(named)
    if len(active) != 1:
        raise CheckpointError(
            f"{where} is an adapter, and the task's model has the active adapters {active}; expected one"
        )
    return parts[0].peft_config[active[0]], active[0], known - set(active)


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


def _plain(key: str, value: Any) -> Any:
    """Return a value of a configuration as it is compared: as JSON has it, names as a sorted list, none as None."""
    if isinstance(value, set | list | tuple):
        return sorted(set(map(str, value))) or None
    if key == _START and not str(value).startswith(_MOVES_BASE):
        return "any"
    value = getattr(value, "value", value)
    return None if value in ({}, "") else value
