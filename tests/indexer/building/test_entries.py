"""Entries of the manifest: weights as files, rates by parameter, caveats of a run."""

from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from indexer import Task
from indexer.building.entries import (
    block_entries,
    caveats,
    checkpoint_entries,
    optimizer_entry,
    ref_of,
    state_file,
    task_entry,
)
from indexer.building.source import Source, open_source
from indexer.checkpoints.folder import open_run
from indexer.checkpoints.optimizer import Optimizer
from indexer.index.objects import Objects


@pytest.fixture(scope="module")
def source(task: Task, run: Path) -> Source:
    return open_source(task, open_run(run))


def test_tied_weights_are_kept_by_both_names() -> None:
    weight = torch.arange(6.0).reshape(2, 3)
    found = safetensors.torch.load(state_file({"a": weight, "b": weight, "c": weight.T}))
    assert found["a"].equal(weight) and found["b"].equal(weight) and found["c"].equal(weight.T)


def test_a_ref_is_that_of_the_object(tmp_path: Path) -> None:
    assert ref_of(b"weights") == Objects(tmp_path).add(b"weights")


def test_checkpoints_are_named_with_their_weights(source: Source) -> None:
    found = checkpoint_entries(source)
    assert [entry.file for entry in found] == ["epoch-01.safetensors", "epoch-03.safetensors", "epoch-06.safetensors"]
    assert [entry.object for entry in found] == [ref_of(state_file(state)) for state in source.weights.files]
    assert {(entry.eta, entry.learning_rate) for entry in found} == {(0.1, 0.1)}
    assert all(entry.rates == [] and not entry.adapter for entry in found)


def test_parameters_of_other_rates_are_listed_by_their_rate(source: Source) -> None:
    etas = tuple({**of, "5.bias": 0.5} for of in source.etas)
    [entry, *_] = checkpoint_entries(replace(source, etas=etas))
    assert [(rate.parameters, rate.eta) for rate in entry.rates] == [
        (["1.weight", "1.bias", "5.weight"], 0.1),
        (["5.bias"], 0.5),
    ]
    assert entry.eta == 0.1


def test_what_a_run_says_of_its_optimizer_is_repeated(source: Source) -> None:
    adam = replace(source, run=replace(source.run, optimizer=Optimizer("adam", {"beta1": 0.9})))
    assert optimizer_entry(adam) == {"name": "adam", "beta1": 0.9}
    assert optimizer_entry(replace(source, run=replace(source.run, optimizer=None))) is None
    assert any("adam" in caveat.lower() for caveat in caveats(adam, None, "learning_rate"))


def test_the_task_and_its_blocks_are_values(task: Task, source: Source) -> None:
    assert task_entry(task).labels == [str(digit) for digit in range(10)]
    assert task_entry(task).input == task.codec.describe()
    assert [(entry.name, entry.shape) for entry in block_entries(source.model.layout)] == [
        (block.name, block.shape) for block in source.model.layout.blocks
    ]
