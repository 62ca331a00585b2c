"""The benchmark of gradients: a tiny cell runs, ratios are of the same round, and wrong vectors are found out."""

import copy
import math

import pytest
import torch

from benchmarks import gradients
from benchmarks.gradients import NotVerifiedError, Ratio, interleaved, main, measure, paired, table
from benchmarks.models import workload
from benchmarks.passes import OURS, Subject, prepare
from indexer.gradients.probe import PROBE_ROWS, probe
from indexer.recipes.mnist import loss

BATCH, ROUNDS = 8, 2


@pytest.fixture(scope="module")
def subject() -> Subject:
    work = workload("mlp")
    return prepare(work, probe(copy.deepcopy(work.module), loss, work.first(PROBE_ROWS)), BATCH)


def test_a_cell_is_verified_and_timed(subject: Subject) -> None:
    cell = measure(subject, ROUNDS, threads=1)
    assert (cell.model, cell.batch, cell.threads) == ("mlp", BATCH, 1)
    assert max(cell.errors.values()) < 1e-5
    assert set(OURS) < set(cell.ratios) == set(cell.microseconds)
    assert cell.ratios[cell.step] == Ratio(1, 1, 1)
    assert all(0 < ratio.low <= ratio.median <= ratio.high < math.inf for ratio in cell.ratios.values())
    head, rule, row = table([cell]).splitlines()
    assert head.count("|") == rule.count("|") == row.count("|")
    assert str(cell.ratios["rank1"]) in row


@pytest.mark.parametrize("wrong", [0.0, math.nan])
def test_a_wrong_matrix_is_found_out(subject: Subject, monkeypatch: pytest.MonkeyPatch, wrong: float) -> None:
    name, matrix = next(iter(subject.matrices.items()))
    changed = matrix.clone()
    changed[0] = wrong
    monkeypatch.setitem(subject.matrices, name, changed)
    with pytest.raises(NotVerifiedError, match=r"rank1 .*expected each below 1e-04"):
        measure(subject, ROUNDS, threads=1)


def test_what_is_wrong_is_not_timed_and_gives_exit_status_1(
    subject: Subject, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gradients, "prepare", lambda *_: subject)
    monkeypatch.setattr(gradients, "LARGEST_ERROR", 0.0)
    monkeypatch.setattr(gradients, "interleaved", None)
    arguments = ["--models", "mlp", "--threads", "1", "--batches", str(BATCH), "--rounds", str(ROUNDS)]
    assert main(arguments) == 1
    assert "WRONG mlp, batch 8, threads 1: relative error" in capsys.readouterr().out


def test_absent_data_are_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setenv("PROPONENT_DATA", str(tmp_path_factory.mktemp("empty")))
    assert main(["--models", "transformer,resnet", "--threads", "1"]) == 0
    said = capsys.readouterr().out
    assert "SKIPPED transformer: " in said and "dbpedia_train.csv.gz is absent" in said
    assert "SKIPPED resnet: " in said and "cifar10_subset.npz is absent" in said


def test_passes_take_turns() -> None:
    order: list[str] = []
    seconds = interleaved({name: lambda name=name: order.append(name) for name in "abc"}, ROUNDS)  # type: ignore[misc]
    assert "".join(order) == "abc" * (ROUNDS + 2)
    assert {name: len(taken) for name, taken in seconds.items()} == dict.fromkeys("abc", ROUNDS)


def test_ratios_are_of_the_same_round() -> None:
    """A round in which everything is ten times slower does not move them."""
    assert paired([2, 20, 4], [1, 10, 1]) == Ratio(2, 2, 3)
    assert str(Ratio(1, 0.5, 2)) == "1.00 (0.50-2.00)"


def test_the_matrix_of_a_dense_projection_is_for_one_batch_size_only(subject: Subject) -> None:
    assert subject.dense is None
    assert torch.equal(subject.batch[0], subject.work.data[0][:BATCH])
