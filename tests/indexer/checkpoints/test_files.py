"""Listings and files of checkpoints: what is kept, and every refusal by its text."""

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

from indexer.checkpoints.files import Checkpoint, list_checkpoints, load_into, read_state
from indexer.errors import CheckpointError, LearningRateError

List = Callable[..., Path]


@pytest.fixture
def listed(tmp_path: Path) -> List:
    """Return a function that writes a listing of the entries, and an empty file for each name."""

    def write(*entries: Any) -> Path:
        for name in ("a.safetensors", "b.pt"):
            (tmp_path / name).touch()
        (tmp_path / "checkpoints.json").write_text(json.dumps({"checkpoints": entries}))
        return tmp_path

    return write


def test_checkpoints_come_in_the_order_of_the_listing(listed: List) -> None:
    folder = listed(
        {"file": "b.pt", "learning_rate": 0.5, "step": 71, "epoch": 1, "train_loss": 0.61, "comment": "warm-up"},
        {"file": "a.safetensors", "learning_rate": 1},
    )
    assert list_checkpoints(folder) == (
        Checkpoint(folder / "b.pt", 0.5, step=71, epoch=1.0, train_loss=0.61),
        Checkpoint(folder / "a.safetensors", 1.0),
    )


def test_a_folder_without_a_listing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no checkpoints\.json; list there each checkpoint's file and learn"):
        list_checkpoints(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "null", '{"files": []}', '{"checkpoints": [NaN]}', "\xff"])
def test_a_malformed_listing_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "checkpoints.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(CheckpointError, match=r'checkpoints\.json\': expected \{"checkpoints": \[\.\.\.\]\} in JSON'):
        list_checkpoints(tmp_path)


@pytest.mark.parametrize("entries", ["[]", "{}", '"a.pt"', "null", "0"])
def test_an_empty_listing_is_refused(tmp_path: Path, entries: str) -> None:
    (tmp_path / "checkpoints.json").write_text(f'{{"checkpoints": {entries}}}')
    with pytest.raises(CheckpointError, match="expected at least one checkpoint, found none"):
        list_checkpoints(tmp_path)


@pytest.mark.parametrize("entry", ["a.safetensors", {}, {"file": 7, "learning_rate": 0.1}, None])
def test_an_entry_without_a_file_is_refused(listed: List, entry: object) -> None:
    with pytest.raises(CheckpointError, match=r"checkpoint 2 of 2 in .* names no 'file'"):
        list_checkpoints(listed({"file": "b.pt", "learning_rate": 0.1}, entry))


def test_a_missing_file_is_named(listed: List) -> None:
    expected = r"checkpoint 1 of 1 \('c\.pt'\) does not exist in .*; restore the file or take it off checkpoints\.json"
    with pytest.raises(CheckpointError, match=expected):
        list_checkpoints(listed({"file": "c.pt", "learning_rate": 0.1}))


@pytest.mark.parametrize("entry", [{}, {"learning_rate": None}])
def test_a_missing_learning_rate_is_refused(listed: List, entry: dict[str, Any]) -> None:
    expected = r"checkpoint 1 of 1 \('b\.pt'\) has no learning_rate; write into checkpoints\.json the rate"
    with pytest.raises(LearningRateError, match=expected):
        list_checkpoints(listed({"file": "b.pt", **entry}))


@pytest.mark.parametrize("rate", [0, 0.0, -0.1, True, "0.1", [0.1]])
def test_a_learning_rate_that_is_not_positive_is_refused(listed: List, rate: object) -> None:
    with pytest.raises(LearningRateError, match=r"\('b\.pt'\) has learning_rate .*; expected a positive number") as exc:
        list_checkpoints(listed({"file": "b.pt", "learning_rate": rate}))
    assert repr(rate) in str(exc.value)


@pytest.mark.parametrize("rate", [float("nan"), float("inf")])
def test_a_learning_rate_that_is_not_finite_is_no_json(listed: List, rate: float) -> None:
    with pytest.raises(CheckpointError, match=r'expected \{"checkpoints": \[\.\.\.\]\} in JSON'):
        list_checkpoints(listed({"file": "b.pt", "learning_rate": rate}))


@pytest.mark.parametrize("key", ["step", "epoch", "train_loss"])
@pytest.mark.parametrize("value", ["7", False, [7]])
def test_other_numbers_must_be_numbers(listed: List, key: str, value: object) -> None:
    with pytest.raises(CheckpointError, match=rf"\('b\.pt'\) has {key} .*; expected a number"):
        list_checkpoints(listed({"file": "b.pt", "learning_rate": 0.1, key: value}))


STATE = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.tensor([1.0, -1.0])}


def saved(path: Path, state: Any) -> Path:
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize("name", ["a.safetensors", "a.pt", "a.bin"])
def test_states_are_read_bit_for_bit(tmp_path: Path, name: str) -> None:
    found = read_state(saved(tmp_path / name, STATE))
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
        read_state(tmp_path / "a.pt")
    assert not (tmp_path / "witness").exists()


@pytest.mark.parametrize("content", [{"model": STATE, "epoch": 3}, {"lr": 0.1}, [torch.zeros(2)], torch.zeros(2)])
def test_more_than_tensors_by_name_is_refused(tmp_path: Path, content: object) -> None:
    with pytest.raises(CheckpointError, match=r"a\.pt' holds more than tensors by name; save `model\.state_dict\(\)` "):
        read_state(saved(tmp_path / "a.pt", content))


@pytest.mark.parametrize("name", ["a.safetensors", "a.pt"])
@given(cut=st.floats(0, 0.99))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_truncated_files_are_refused(tmp_path_factory: pytest.TempPathFactory, name: str, cut: float) -> None:
    path = saved(tmp_path_factory.mktemp("state") / name, STATE)
    data = path.read_bytes()
    path.write_bytes(data[: int(cut * len(data))])
    with pytest.raises(CheckpointError, match="cannot be read as weights only"):
        read_state(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")
@pytest.mark.parametrize("name", ["a.safetensors", "a.pt"])
@given(noise=st.binary(min_size=1, max_size=60))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_arbitrary_bytes_are_refused(tmp_path_factory: pytest.TempPathFactory, name: str, noise: bytes) -> None:
    path = tmp_path_factory.mktemp("state") / name
    path.write_bytes(noise)
    with pytest.raises(CheckpointError, match="cannot be read as weights only"):
        read_state(path)


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
