"""The states of one model at several checkpoints: copies, with buffers, tied parameters once."""

from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from indexer.checkpoints.run import Checkpoint, Run
from indexer.checkpoints.states import model_states, read_states
from indexer.errors import CheckpointError


def test_every_state_is_a_copy_of_its_checkpoint() -> None:
    files = [(f"checkpoint {i}", nn.Linear(3, 2).state_dict()) for i in range(3)]
    module = nn.Linear(3, 2)
    found = model_states(module, files)
    for state, (_, file) in zip(found, files, strict=True):
        assert state.keys() == file.keys()
        assert all(state[name].equal(file[name]) for name in file)
        assert not any(tensor.requires_grad for tensor in state.values())
    assert module.weight.equal(files[-1][1]["weight"])


def test_buffers_are_part_of_a_state() -> None:
    module = nn.BatchNorm1d(2)
    module(torch.randn(8, 2))
    [found] = model_states(nn.BatchNorm1d(2), [("checkpoint 1", module.state_dict())])
    assert found["running_mean"].equal(module.get_buffer("running_mean"))
    assert set(found) == {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}


def test_a_tied_parameter_is_there_once() -> None:
    module = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    module[1].weight = module[0].weight
    [found] = model_states(module, [("checkpoint 1", module.state_dict())])
    assert set(found) == {"0.weight"}


def test_the_checkpoint_that_does_not_fit_is_named() -> None:
    files = [("checkpoint 1", nn.Linear(3, 2).state_dict()), ("checkpoint 2", nn.Linear(4, 2).state_dict())]
    with pytest.raises(CheckpointError, match="checkpoint 2: expected 'weight' of shape"):
        model_states(nn.Linear(3, 2), files)


def test_what_no_checkpoint_changes_is_one_tensor() -> None:
    base = torch.randn(2, 3)
    files = [(f"checkpoint {i}", {"weight": base.clone(), "bias": torch.full((2,), float(i))}) for i in range(2)]
    first, second = model_states(nn.Linear(3, 2), files)
    assert first["weight"] is second["weight"] and first["bias"] is not second["bias"]
    assert first["bias"].equal(torch.zeros(2)) and second["bias"].equal(torch.ones(2))


def run_of(folder: Path, *states: dict[str, Tensor], adapters: tuple[bool, ...] = ()) -> Run:
    """A run with a file for each state."""
    paths = [folder / f"{i}.safetensors" for i in range(len(states))]
    for path, state in zip(paths, states, strict=True):
        safetensors.torch.save_file(state, path)
    kinds = adapters or (False,) * len(states)
    return Run(folder, "a test", tuple(Checkpoint(p, adapter=a) for p, a in zip(paths, kinds, strict=True)))


def test_a_run_is_read_by_the_module_s_own_names(tmp_path: Path) -> None:
    states = [{f"net.{name}": tensor for name, tensor in nn.Linear(3, 2).state_dict().items()} for _ in range(2)]
    found = read_states(run_of(tmp_path, *states), nn.Linear(3, 2))
    assert found.renamed == {"net.weight": "weight", "net.bias": "bias"}
    for i, state in enumerate(states):
        assert found.files[i].keys() == found.states[i].keys() == {"weight", "bias"}
        assert found.files[i]["weight"].equal(state["net.weight"]) and found.states[i]["bias"].equal(state["net.bias"])


def test_a_tied_weight_that_the_file_has_once_is_there_by_all_its_names(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    module[1].weight = module[0].weight
    [file] = read_states(run_of(tmp_path, {"1.weight": torch.ones(3, 3)}), module).files
    assert set(file) == {"0.weight", "1.weight"}
    assert module.get_parameter("0.weight").equal(torch.ones(3, 3))


def test_names_that_the_model_ties_and_the_file_does_not_are_refused(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    module[1].weight = module[0].weight
    expected = r"\('0\.safetensors'\) has other weights for '0\.weight' than for '1\.weight', which the task's mod"
    with pytest.raises(CheckpointError, match=expected):
        read_states(run_of(tmp_path, {"0.weight": torch.ones(3, 3), "1.weight": torch.zeros(3, 3)}), module)


def test_adapters_and_whole_models_do_not_mix(tmp_path: Path) -> None:
    run = run_of(tmp_path, {"weight": torch.ones(1)}, {"weight": torch.ones(1)}, adapters=(False, True))
    expected = r"checkpoint 2 of 2 \('1\.safetensors'\) is an adapter and checkpoint 1 of 2 \('0\.safetensors'\) is not"
    with pytest.raises(CheckpointError, match=expected):
        read_states(run, nn.Linear(1, 1))
