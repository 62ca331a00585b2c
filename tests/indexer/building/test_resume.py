"""Going on with a build that was stopped: nothing is made twice, and nothing that differs is gone on with."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from indexer import BuildSpec, Task, build
from indexer.building.begin import begin
from indexer.building.journal import PlanRecord
from indexer.building.resume import refuse_other
from indexer.errors import BuildError
from indexer.index.versions import is_index
from indexer.methods.tracin import TracIn
from indexer.task import read_rows
from tests.micro import BATCH, ROWS, micro_model, micro_spec
from tests.stopped import stop
from tests.tiny import cross_entropy

Told = list[tuple[str, int, int]]

pytestmark = pytest.mark.usefixtures("small_shards")


@pytest.fixture(scope="module")
def record(micro: Task, checkpoints: Path) -> PlanRecord:
    return begin(micro, micro_spec(checkpoints, card_queries=1), None).record


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
    assert passed == [BATCH, ROWS - 2 * BATCH]  # the first is compared with what is stored
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


def frozen() -> nn.Module:
    """[b, 1, 2, 2] -> [b, 3], its bias not trained."""
    model = micro_model()
    model.get_parameter("1.bias").requires_grad_(False)
    return model


def twice_as_steep(outputs: Tensor, targets: Tensor) -> Tensor:
    """The values of the loss, and another gradient."""
    found = cross_entropy(outputs, targets)
    return 2 * found - found.detach()


@pytest.mark.parametrize("projection", [{"name": "pca"}, {"name": "rank1", "numbers": 4, "seed": 0}])
def test_other_gradients_of_the_same_outputs_are_refused(
    micro: Task, spec: BuildSpec, tmp_path: Path, projection: dict[str, Any]
) -> None:
    coded = None if projection["name"] == "rank1" else spec.bytes_per_example
    plain = replace(spec, projection=projection, bytes_per_example=coded)
    stop(micro, plain, tmp_path / "index")
    with pytest.raises(
        BuildError, match=r"the list of parameter blocks was of 2, and is of 1 now|of parameter block 1"
    ):
        build(replace(micro, model=frozen), plain, tmp_path / "index")
    with pytest.raises(BuildError, match=r"the gradients of rows 0 to 3 of task\.train are others than in .*--restart"):
        build(replace(micro, loss=twice_as_steep), plain, tmp_path / "index")
    assert is_index(build(micro, plain, tmp_path / "index").folder)
