"""Reading weights by name, and loading them into a module.

A checkpoint is a file of safetensors, a file that ``torch.save`` wrote (a state dict, or a dict that wraps one), or a
folder as Hugging Face writes it: one file, shards with an index, or an adapter. Torch files are read with
``weights_only=True``: reading never runs code from them.
"""

from collections.abc import Collection, Mapping
from pathlib import Path

import orjson
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from indexer.checkpoints.weights_only import load_weights_only
from indexer.checkpoints.wrapped import unwrapped
from indexer.errors import CheckpointError

WHOLE = ("model.safetensors", "pytorch_model.bin")
SHARDED = tuple(f"{name}.index.json" for name in WHOLE)
ADAPTER = ("adapter_model.safetensors", "adapter_model.bin")
_ADVICE = "save `model.state_dict()` with torch.save or safetensors"


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint, on the CPU.

    Raises:
        CheckpointError: a file is missing, unreadable, or holds no tensors by name.
    """
    if path.is_dir():
        return _read_folder(path)
    if path.suffix == ".safetensors":
        try:
            return safetensors.torch.load_file(path)
        except (safetensors.SafetensorError, OSError) as exc:
            raise CheckpointError(f"{str(path)!r} cannot be read as weights only; {_ADVICE}") from exc
    state = unwrapped(load_weights_only(path, _ADVICE))
    if state is None:
        raise CheckpointError(f"{str(path)!r} holds no tensors by name; {_ADVICE}")
    return dict(state)


def _read_folder(folder: Path) -> dict[str, Tensor]:
    for name in (*WHOLE, *SHARDED, *ADAPTER):
        if (folder / name).is_file():
            return _read_shards(folder, name) if name in SHARDED else read_weights(folder / name)
    raise CheckpointError(f"{str(folder)!r} has no weights; expected one of {', '.join((*WHOLE, *SHARDED, *ADAPTER))}")


def _read_shards(folder: Path, index: str) -> dict[str, Tensor]:
    """Return the tensors of all shards.

    Raises:
        CheckpointError: the index is malformed, a shard lies elsewhere, or a tensor is not in its shard.
    """
    try:
        places = orjson.loads((folder / index).read_bytes())["weight_map"]
        shards = sorted(set(places.values()))
        outside = [shard for shard in shards if Path(shard).name != shard]
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as exc:
        raise CheckpointError(
            f'{str(folder / index)!r}: expected {{"weight_map": {{tensor: file}}}} in JSON; save the model again'
        ) from exc
    if outside:
        raise CheckpointError(f"{str(folder / index)!r} names a file of another folder: {outside[0]!r}")
    found = {name: tensor for shard in shards for name, tensor in read_weights(folder / shard).items()}
    absent = sorted(set(places) - set(found))
    if absent:
        raise CheckpointError(f"{str(folder / index)!r}: {absent[0]!r} is not in {places[absent[0]]!r}")
    return found


def load_into(module: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Load the weights into the module, every name and shape checked first; ``where`` names the checkpoint.

    Raises:
        CheckpointError: names or shapes differ; the first difference is named.
    """
    _check(module, state, set(module.state_dict()), where)
    module.load_state_dict(dict(state))


def load_adapter_into(module: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Load an adapter's weights: every trainable parameter must be among them; the others are the task's own.

    Raises:
        CheckpointError: names or shapes differ; the first difference is named.
    """
    _check(module, state, {name for name, parameter in module.named_parameters() if parameter.requires_grad}, where)
    module.load_state_dict(dict(state), strict=False)


def _check(module: nn.Module, state: Mapping[str, Tensor], required: Collection[str], where: str) -> None:
    """Make sure that the required names are there, that no other than the module's are, and that all fit.

    Raises:
        CheckpointError: the first difference.
    """
    expected = module.state_dict()
    for name, tensor in expected.items():
        if name not in state and name in required:
            raise CheckpointError(
                f"{where} has no {name!r}, which the task's model has; was it saved from another model?"
            )
        if name not in state:
            continue
        if state[name].shape != tensor.shape:
            raise CheckpointError(
                f"{where}: expected {name!r} of shape {tuple(tensor.shape)} as in the task's model, "
                f"found {tuple(state[name].shape)}"
            )
        if not torch.isfinite(state[name]).all():
            raise CheckpointError(f"{where}: {name!r} holds NaN or infinity; the training diverged before it was saved")
    extra = sorted(set(state) - set(expected))
    if extra:
        raise CheckpointError(
            f"{where} has {extra[0]!r}, which the task's model has not; was it saved from another model?"
        )
