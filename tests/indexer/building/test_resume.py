"""Going on with a build that was stopped: nothing is made twice, and nothing that differs is gone on with."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch.utils.data import TensorDataset

from indexer import BuildSpec, Task, build
from indexer.building.begin import begin
from indexer.building.journal import Journal, PlanRecord
from indexer.building.resume import refuse_other
from indexer.errors import BuildError, TaskError
from indexer.index.lock import writing_in
from indexer.index.versions import is_index
from indexer.methods.tracin import TracIn
from indexer.task import read_rows
from tests.micro import BATCH, ROWS, micro_run, micro_spec, micro_task
from tests.tiny import cross_entropy

Told = list[tuple[str, int, int]]


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three shards, of a batch each."""
    monkeypatch.setattr("indexer.building.plan.SHARD_BATCHES", 1)


@pytest.fixture(scope="module")
def micro() -> Task:
    return micro_task()


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return micro_run(tmp_path_factory.mktemp("micro") / "run")


@pytest.fixture
def spec(checkpoints: Path) -> BuildSpec:
    return micro_spec(checkpoints, card_queries=1)


@pytest.fixture(scope="module")
def record(micro: Task, checkpoints: Path) -> PlanRecord:
    return begin(micro, micro_spec(checkpoints, card_queries=1), None).record


def stop(task: Task, spec: BuildSpec, folder: Path, rows: int = 2 * BATCH + 1) -> None:
    """Build until the pass is past so many rows."""

    def dies(stage: str, done: int, total: int) -> None:
        if stage == "vectors" and done >= rows:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(task, spec, folder, dies)
    assert Journal(folder).plan() is not None


def test_finished_shards_and_bases_are_not_made_again(
    micro: Task, spec: BuildSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop(micro, spec, tmp_path / "index")
    passed: list[int] = []
    train_rows = TracIn.train_rows

    def counted(self: TracIn, batch: Any, asked: Any = None) -> Any:
        passed.append(len(batch[0]))
        return train_rows(self, batch, asked)

    monkeypatch.setattr(TracIn, "train_rows", counted)
    monkeypatch.setattr("indexer.methods.tracin_kind.fit_pca", None)
    told: Told = []
    found = build(micro, spec, tmp_path / "index", lambda *stage: told.append(stage))
    assert passed == [ROWS - 2 * BATCH]
    assert told == [
        ("checking", 4, 8),
        ("checking", 8, 8),
        ("vectors", 8, 12),
        ("vectors", 12, 12),
        ("examples", 15, 15),
    ]
    monkeypatch.undo()
    assert found.fingerprint != "" and is_index(found.folder) and not (tmp_path / "index" / "building").exists()


def test_a_plan_is_gone_on_with_on_a_machine_that_would_plan_another(
    micro: Task, spec: BuildSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = replace(spec, batch_size=None)
    monkeypatch.setattr("indexer.building.plan.LARGEST_BATCH", 4)
    expected = build(micro, planned, tmp_path / "whole")
    stop(micro, planned, tmp_path / "index")
    monkeypatch.setattr("indexer.building.plan.LARGEST_BATCH", 8)
    torch.set_num_threads(2)
    found = build(micro, planned, tmp_path / "index")
    assert found.manifest.plan.batch_size == 4 and found.manifest.plan.threads == 1
    assert found.fingerprint == expected.fingerprint


def other_weights(run: Path) -> None:
    path = run / "epoch-02.safetensors"
    state = safetensors.torch.load(path.read_bytes())
    safetensors.torch.save_file({name: 2 * tensor for name, tensor in state.items()}, path)


def other_rate(run: Path) -> None:
    path = run / "checkpoints.json"
    path.write_text(path.read_text().replace("0.1", "0.2"))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (other_weights, r"the weights of checkpoint 2 \('epoch-02\.safetensors'\), by their hash, was '\w+', and is '"),
        (other_rate, r"learning_rate of checkpoint 1 was 0\.1, and is 0\.2 now\. Give the same again"),
    ],
)
def test_another_run_is_refused(
    micro: Task, checkpoints: Path, copy_of: Callable[[Path], Path], change: Callable[[Path], None], expected: str
) -> None:
    run = copy_of(checkpoints)
    stop(micro, micro_spec(run, 1), run.parent / "index")
    change(run)
    with pytest.raises(BuildError, match=expected):
        build(micro, micro_spec(run, 1), run.parent / "index")


def test_a_run_may_be_moved(micro: Task, checkpoints: Path, copy_of: Callable[[Path], Path], tmp_path: Path) -> None:
    run = copy_of(checkpoints)
    stop(micro, micro_spec(run, 1), tmp_path / "index")
    moved = run.rename(run.parent / "moved")
    assert is_index(build(micro, micro_spec(moved, 1), tmp_path / "index").folder)


def test_other_choices_and_data_are_refused_by_name_and_begun_anew_on_request(
    micro: Task, spec: BuildSpec, tmp_path: Path
) -> None:
    folder = tmp_path / "index"
    stop(micro, spec, folder)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    inputs, targets = read_rows(micro.train, range(ROWS))
    refused: list[tuple[Task, BuildSpec, str]] = [
        (micro, replace(spec, batch_size=3), "batch_size was 4, and is 3 now"),
        (
            replace(micro, train=TensorDataset(inputs[:8], targets[:8])),
            spec,
            "number of train examples was 12, and is 8",
        ),
        (replace(micro, loss=lambda y, t: 2 * cross_entropy(y, t)), spec, "the loss say of a few training examples"),
    ]
    for task, other, expected in refused:
        with pytest.raises(BuildError, match=f"cannot go on: .*{expected}.*"):
            build(task, other, folder)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    found = build(micro, replace(spec, batch_size=3), folder, restart=True)
    assert found.fingerprint == build(micro, replace(spec, batch_size=3), tmp_path / "fresh").fingerprint


@pytest.mark.parametrize(
    ("update", "expected"),
    [
        ({"machine": "abacus"}, "the processor was 'abacus', and is '"),
        ({"plan": {"versions": {"torch": "1.0"}}}, "the version of torch was '1.0', and is '"),
        ({"spec": {"batch_size": 5}}, "batch_size was 5, and is 4 now"),
        ({"spec": {"projection": {"seed": 1}}}, r"projection\.seed was 1, and is 0 now"),
        ({"spec": {"steps": [3]}}, r"steps was \[3\], and is \[\] now"),
        ({"task": {"labels": ["a", "b", "d"]}}, r"labels\.2 was 'd', and is 'c' now"),
        ({"rows": {"train": 12}}, "the number of test examples was None, and is 3 now"),
        ({"checkpoints": []}, r"the list of checkpoints was \[\], and is of 2 now"),
    ],
)
def test_what_differs_is_named(record: PlanRecord, update: dict[str, Any], expected: str) -> None:
    document = record.model_dump(mode="json")
    refuse_other(Path("index"), PlanRecord.model_validate(document), record)
    for key, value in update.items():
        inner = isinstance(value, dict) and key != "rows"
        document[key] = merged(document[key], value) if inner else value
    with pytest.raises(BuildError, match=f"in 'index' cannot go on: {expected}"):
        refuse_other(Path("index"), PlanRecord.model_validate(document), record)


def merged(into: dict[str, Any], update: dict[str, Any]) -> dict[str, Any]:
    """Put values at the places of a nested document."""
    found = {key: merged(into[key], value) if isinstance(value, dict) else value for key, value in update.items()}
    return into | found


def changed(task: Task, row: int) -> Task:
    inputs, targets = read_rows(task.train, range(ROWS))
    inputs[row, 0, 0, 0] += 0.5
    return replace(task, train=TensorDataset(inputs, targets))


def test_changed_data_is_refused(micro: Task, checkpoints: Path, tmp_path: Path) -> None:
    """A row of a finished shard by its number; of the sample or the card's queries, that there is one."""
    plain = replace(micro_spec(checkpoints, 1), bytes_per_example=None, projection={"name": "rank1", "numbers": 4})
    stop(micro, plain, tmp_path / "rank1")
    with pytest.raises(BuildError, match=r"task\.train has another example at row 5 than when its vector was made"):
        build(changed(micro, 5), plain, tmp_path / "rank1")
    spec = micro_spec(checkpoints, 1)
    stop(micro, spec, tmp_path / "pca")
    with pytest.raises(BuildError, match="an example of the sample that bases and codes were fitted on has changed"):
        build(changed(micro, 5), spec, tmp_path / "pca")
    asked = replace(micro, test=TensorDataset(torch.ones(3, 1, 2, 2), torch.tensor([0, 1, 2])))
    with pytest.raises(BuildError, match="an example that the card asks about has changed since the build that this"):
        build(asked, spec, tmp_path / "pca")


def test_a_build_that_was_stopped_before_its_fit_leaves_nothing(micro: Task, spec: BuildSpec, tmp_path: Path) -> None:
    def dies(stage: str, done: int, total: int) -> None:
        raise TaskError("at once")

    with pytest.raises(TaskError, match="at once"):
        build(micro, spec, tmp_path / "index", dies)
    assert list(tmp_path.iterdir()) == []


def test_two_builds_in_one_folder_exclude_each_other(micro: Task, spec: BuildSpec, tmp_path: Path) -> None:
    def meanwhile(stage: str, done: int, total: int) -> None:
        if (stage, done) != ("vectors", 8):
            return
        with pytest.raises(BuildError, match=r"another build or edit is at work in '.*index'; wait for it"):
            build(micro, spec, tmp_path / "index")

    assert is_index(build(micro, spec, tmp_path / "index", meanwhile).folder)
    with writing_in(tmp_path / "other"), pytest.raises(BuildError, match="another build or edit is at work in"):
        build(micro, spec, tmp_path / "other")


def test_a_build_that_was_stopped_at_its_very_end_is_ended_by_the_same_command(
    micro: Task, spec: BuildSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "index"
    with monkeypatch.context() as patch:
        patch.setattr("indexer.building.build._log", stop_here)
        with pytest.raises(KeyboardInterrupt):
            build(micro, spec, folder)
    assert is_index(folder) and (folder / "building").is_dir()
    ended = build(micro, spec, folder)
    ended.check_sizes()
    assert not (folder / "building").exists()
    with pytest.raises(BuildError, match="already holds an index"):
        build(micro, spec, folder)
    with pytest.raises(BuildError, match="already holds an index"):
        build(micro, spec, folder, restart=True)


def stop_here(*arguments: object) -> None:
    raise KeyboardInterrupt
