"""Weights by name: read bit for bit or refused, and loaded with every name and shape checked."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from indexer.checkpoints.weights import load_adapter_into, load_into, read_weights
from indexer.errors import CheckpointError

STATE = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.tensor([1.0, -1.0])}


def saved(path: Path, state: Any) -> Path:
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize("name", ["a.safetensors", "a.pt", "a.bin"])
def test_states_are_read_bit_for_bit(tmp_path: Path, name: str) -> None:
    found = read_weights(saved(tmp_path / name, STATE))
    assert set(found) == set(STATE)
    assert all(found[key].equal(tensor) for key, tensor in STATE.items())


class Trap:
    """Runs code when it is unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.witness,)


@pytest.mark.parametrize("save", [torch.save, lambda trap, path: path.write_bytes(pickle.dumps(trap, protocol=2))])
def test_code_in_a_pickle_is_refused_and_never_run(tmp_path: Path, save: Callable[[Any, Path], object]) -> None:
    save({"weight": Trap(tmp_path / "witness")}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"a\.pt' cannot be read as weights only; save `model\.state_dict\(\)`"):
        read_weights(tmp_path / "a.pt")
    assert not (tmp_path / "witness").exists()


def test_a_state_is_found_in_what_wraps_it(tmp_path: Path) -> None:
    found = read_weights(saved(tmp_path / "a.pt", {"epoch": 3, "model_state_dict": STATE}))
    assert set(found) == set(STATE) and found["weight"].equal(STATE["weight"])


@pytest.mark.parametrize("content", [{"weights": STATE}, {"lr": 0.1}, [torch.zeros(2)], torch.zeros(2), {}])
def test_what_holds_no_tensors_by_name_is_refused(tmp_path: Path, content: object) -> None:
    with pytest.raises(CheckpointError, match=r"a\.pt' holds no tensors by name; save `model\.state_dict\(\)` with"):
        read_weights(saved(tmp_path / "a.pt", content))


@pytest.mark.parametrize("name", ["a.safetensors", "a.pt"])
@given(cut=st.floats(0, 0.99))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_truncated_files_are_refused(tmp_path_factory: pytest.TempPathFactory, name: str, cut: float) -> None:
    path = saved(tmp_path_factory.mktemp("state") / name, STATE)
    data = path.read_bytes()
    path.write_bytes(data[: int(cut * len(data))])
    with pytest.raises(CheckpointError, match="cannot be read as weights only"):
        read_weights(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")
@pytest.mark.parametrize("name", ["a.safetensors", "a.pt"])
@given(noise=st.binary(min_size=1, max_size=60))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_arbitrary_bytes_are_refused(tmp_path_factory: pytest.TempPathFactory, name: str, noise: bytes) -> None:
    path = tmp_path_factory.mktemp("state") / name
    path.write_bytes(noise)
    with pytest.raises(CheckpointError, match="cannot be read as weights only"):
        read_weights(path)


def changed(**tensors: Tensor | None) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in {**STATE, **tensors}.items() if tensor is not None}


def test_weights_are_loaded_by_name() -> None:
    module = nn.Linear(3, 2)
    load_into(module, STATE, "checkpoint 1 of 1 ('a.pt')")
    assert module.weight.equal(STATE["weight"])
    assert module.bias.equal(STATE["bias"])


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (changed(bias=None), "checkpoint 3 of 5 has no 'bias', which the task's model has; was it saved from another"),
        (changed(scale=torch.ones(2)), "checkpoint 3 of 5 has 'scale', which the task's model has not; was it saved"),
        (changed(weight=torch.ones(3, 2)), r"5: expected 'weight' of shape \(2, 3\) as in the task's model, found \(3"),
        (changed(bias=torch.tensor([1.0, torch.nan])), "5: 'bias' holds NaN or infinity; the training diverged before"),
        (changed(bias=torch.tensor([1.0, -torch.inf])), "5: 'bias' holds NaN or infinity; the training diverged befo"),
    ],
    ids=["missing", "extra", "shape", "NaN", "infinity"],
)
def test_what_does_not_fit_is_refused_before_anything_is_loaded(state: dict[str, Tensor], expected: str) -> None:
    module = nn.Linear(3, 2)
    before = module.weight.clone()
    with pytest.raises(CheckpointError, match=expected):
        load_into(module, state, "checkpoint 3 of 5")
    assert module.weight.equal(before)


def shards(folder: Path, places: dict[str, str], name: str = "model.safetensors.index.json") -> Path:
    """A folder with STATE in two shards, and an index."""
    for key, tensor in STATE.items():
        saved(folder / f"{key}.safetensors", {key: tensor})
    (folder / name).write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return folder


PLACES = {"weight": "weight.safetensors", "bias": "bias.safetensors"}


def test_shards_are_read_as_one(tmp_path: Path) -> None:
    found = read_weights(shards(tmp_path, PLACES))
    assert set(found) == set(STATE) and all(found[key].equal(STATE[key]) for key in STATE)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "adapter_model.safetensors"])
def test_a_folder_is_read_by_its_file(tmp_path: Path, name: str) -> None:
    saved(tmp_path / name, STATE)
    (tmp_path / "training_args.bin").write_bytes(b"a pickle that nobody reads")
    assert read_weights(tmp_path)["bias"].equal(STATE["bias"])


def test_whole_weights_come_before_an_adapter(tmp_path: Path) -> None:
    saved(tmp_path / "adapter_model.safetensors", {"lora": torch.zeros(1)})
    saved(tmp_path / "model.safetensors", STATE)
    assert set(read_weights(tmp_path)) == set(STATE)


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no weights; expected one of model\.safetensors, pytorch"):
        read_weights(tmp_path)


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ({**PLACES, "bias": "../bias.safetensors"}, r"names a file of another folder: '\.\./bias\.safetensors'"),
        ({**PLACES, "bias": "none.safetensors"}, r"none\.safetensors' cannot be read as weights only"),
        ({**PLACES, "bias": "weight.safetensors"}, r"'bias' is not in 'weight\.safetensors'"),
        ({"bias": 7}, r'expected \{"weight_map": \{tensor: file\}\} in JSON; save the model again'),
        ([], r'expected \{"weight_map": \{tensor: file\}\} in JSON'),
    ],
)
def test_an_index_of_shards_that_is_not_whole_is_refused(tmp_path: Path, places: Any, expected: str) -> None:
    with pytest.raises(CheckpointError, match=expected):
        read_weights(shards(tmp_path, places))


def test_an_adapter_is_loaded_over_a_frozen_base() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    module[0].requires_grad_(False)
    before = module.get_parameter("0.weight").detach().clone()
    load_adapter_into(module, {"1.weight": torch.ones(2, 3), "1.bias": torch.ones(2)}, "checkpoint 1")
    assert module.get_parameter("0.weight").equal(before)
    assert module.get_parameter("1.weight").equal(torch.ones(2, 3))


def test_an_adapter_that_leaves_out_what_is_trained_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"checkpoint 1 has no 'bias', which the task's model has"):
        load_adapter_into(nn.Linear(3, 2), {"weight": torch.ones(2, 3)}, "checkpoint 1")
