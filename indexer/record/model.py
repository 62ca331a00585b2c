"""What is recorded of a model and its optimizer, free of what wraps them: names and weights as its author knows.

`DistributedDataParallel` puts ``module.`` before every name and `torch.compile` puts ``_orig_mod.``; a checkpoint has
neither, so that it fits the plain model.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from indexer.errors import RecordError

_COMPILED = "_orig_mod."
_ONE_PROCESS = (
    "one process would record its own part only; gather the weights yourself (torch.distributed.checkpoint) and list "
    "them in checkpoints.json"
)


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model inside of DataParallel, DistributedDataParallel, torch.compile and Lightning's Fabric.

    >>> unwrapped(nn.DataParallel(nn.Linear(2, 1)))
    Linear(in_features=2, out_features=1, bias=True)
    """
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        else:
            names = ("_orig_mod", "_forward_module")
            inner = next((part for name in names if isinstance(part := getattr(model, name, None), nn.Module)), None)
            if inner is None:
                return model
            model = inner


def unwrapped_optimizer(optimizer: Optimizer) -> Optimizer:
    """Return the optimizer that makes the steps: accelerate's wrapper calls it and has no hooks of its own."""
    while isinstance(inner := getattr(optimizer, "optimizer", None), Optimizer):
        optimizer = inner
    return optimizer


def check_recordable(model: nn.Module) -> None:
    """Check that the model's state is whole tensors.

    Raises:
        RecordError: it is spread over several processes, or holds something else.
    """
    if any(type(module).__name__ == "FullyShardedDataParallel" for module in model.modules()):
        raise RecordError(f"the model is sharded over several processes (FSDP), and {_ONE_PROCESS}")
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            raise RecordError(
                f"the model's state has {name!r}, {type(value).__name__}; a checkpoint keeps tensors only. Leave it "
                "out of state_dict(), or record the part of the model without it"
            )
        if hasattr(value, "device_mesh"):
            raise RecordError(f"{name!r} is sharded over several processes (DTensor), and {_ONE_PROCESS}")


def group_names(model: nn.Module, optimizer: Optimizer) -> list[list[str]]:
    """Return the names of the parameters of each group of the optimizer.

    Raises:
        RecordError: the optimizer has a parameter that is not the model's.
    """
    names = {id(parameter): name.replace(_COMPILED, "") for name, parameter in model.named_parameters()}
    for number, group in enumerate(optimizer.param_groups, 1):
        for position, parameter in enumerate(group["params"], 1):
            if id(parameter) not in names:
                raise RecordError(
                    f"parameter {position} of group {number} of the optimizer, of shape {tuple(parameter.shape)}, is "
                    "none of the model's; expected the model whose parameters the optimizer got. If it was moved or "
                    "copied since, make the optimizer afterwards"
                )
    return [[names[id(parameter)] for parameter in group["params"]] for group in optimizer.param_groups]


def weights(model: nn.Module, *, copy: bool) -> dict[str, Tensor]:
    """Return the state on the CPU, tied weights once for each name: safetensors keeps no shared memory.

    copy: also of what is on the CPU already, so that steps to come leave it alone.
    """
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in model.state_dict().items():
        own = tensor.detach().to("cpu", copy=copy).contiguous()
        memory = own.untyped_storage().data_ptr()
        found[name.replace(_COMPILED, "")] = own.clone() if memory in seen else own
        seen.add(memory)
    return found


def optimizer_state(optimizer: Optimizer, names: Sequence[Sequence[str]], *, copy: bool) -> dict[str, Any]:
    """Return ``optimizer.state_dict()`` on the CPU, with the names of its parameters."""
    state = optimizer.state_dict()
    for group, own in zip(state["param_groups"], names, strict=True):
        group["param_names"] = list(own)
    found: dict[str, Any] = _on_cpu(state, copy)
    return found


def rates_used(optimizer: Optimizer) -> list[Tensor | float]:
    """Return the learning rate of each group, NaN where it has none; a rate that is a tensor changes in place."""
    found = []
    for group in optimizer.param_groups:
        rate = group.get("lr")
        found.append(rate.detach().clone() if isinstance(rate, Tensor) else float("nan" if rate is None else rate))
    return found


def gradient_norm(optimizer: Optimizer) -> Tensor:
    """Return the norm of the whole gradient; sparse gradients count with their values."""
    gradients = [
        parameter.grad.detach()
        for group in optimizer.param_groups
        for parameter in group["params"]
        if parameter.grad is not None
    ]
    return nn.utils.get_total_norm([g if g.layout == torch.strided else g.coalesce().values() for g in gradients])


def was_skipped(optimizer: Optimizer) -> bool:
    """Say whether a fused optimizer, called by a GradScaler, found infinite gradients and left the weights alone.

    Others are not called at all then. Of a GPU this is known when the step is done: it waits for it.
    """
    found = getattr(optimizer, "found_inf", None)
    return found is not None and bool(found)


def _on_cpu(value: Any, copy: bool) -> Any:
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=copy)
    if isinstance(value, dict):
        return {key: _on_cpu(one, copy) for key, one in value.items()}
    if isinstance(value, list):
        return [_on_cpu(one, copy) for one in value]
    return tuple(_on_cpu(one, copy) for one in value) if isinstance(value, tuple) else value
