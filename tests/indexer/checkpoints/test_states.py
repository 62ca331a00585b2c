"""The states of one model at several checkpoints: copies, with buffers, tied parameters once."""

import pytest
import torch
from torch import nn

from indexer.checkpoints.states import model_states
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
