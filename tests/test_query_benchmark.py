"""The benchmark of query vectors: verified before it is timed, on an index as on a workload."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import query
from benchmarks.query import LARGEST_ERROR, PLAIN, main, measure, of_index, plain_gradients, relative_error
from indexer import Task
from indexer.methods.method import Batch

ROUNDS = 2


def test_ways_of_an_index_are_verified_and_timed(index_folder: Path, task: Task) -> None:
    subject = of_index(index_folder, task)
    [(name, method)] = subject.methods.items()
    assert relative_error(subject, method) < LARGEST_ERROR
    seconds = measure(subject, ROUNDS)
    assert seconds.keys() == {PLAIN, name}
    assert all(len(taken) == ROUNDS and min(taken) > 0 for taken in seconds.values())


def test_plain_gradients_are_taken_of_the_tensors_of_the_index(
    index_folder: Path, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject, asked = of_index(index_folder, task), []
    right = torch.autograd.grad

    def seen(outputs: Tensor, inputs: list[Tensor]) -> Any:
        found = right(outputs, inputs)
        asked.append(({tensor.data_ptr() for tensor in inputs}, sum(float(part.square().sum()) for part in found)))
        return found

    run = plain_gradients(subject)
    monkeypatch.setattr(torch.autograd, "grad", seen)
    run(subject.questions[0])
    monkeypatch.undo()
    for i, (pointers, norm) in enumerate(asked):
        assert pointers == {subject.model.states[i][name].data_ptr() for name in subject.model.parameters}
        gradients = subject.model.at(i, subject.questions[0]).kept.values()
        assert norm == pytest.approx(sum(float(gradient.square_norm()) for gradient in gradients), rel=LARGEST_ERROR)
    assert len(asked) == len(subject.model)


@pytest.mark.parametrize("factor", [1.001, math.nan])
def test_wrong_vectors_are_found_out_and_not_timed(
    index_folder: Path, task: Task, factor: float, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    subject = of_index(index_folder, task)
    [method] = subject.methods.values()
    right = method.query_vectors

    def wrong(batch: Batch) -> tuple[Tensor, Tensor]:
        vectors, values = right(batch)
        return vectors * factor, values

    monkeypatch.setattr(method, "query_vectors", wrong)
    monkeypatch.setattr(query, "load_task", lambda reference: task)
    monkeypatch.setattr(query, "of_index", lambda folder, task: subject)
    arguments = ["--index", str(index_folder), "--task", "any", "--threads", "1", "--rounds", str(ROUNDS)]
    assert main(arguments) == 1
    assert capsys.readouterr().out.rstrip().endswith("|---|---|---|---|---|---|")
    monkeypatch.setattr(method, "query_vectors", right)
    assert main(arguments) == 0
    assert "runs as a graph" in (said := capsys.readouterr().out)
    assert said.splitlines()[-1].startswith(f"| {index_folder.name} | {index_folder.name} | 1 | ")
