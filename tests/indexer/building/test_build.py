"""The build: repeatable under one plan, independent of batches and row order, and nothing left when it dies."""

import json
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor
from torch.utils.data import Dataset

from indexer import Ask, BuildSpec, KnownExample, Question, Task, build
from indexer.building.source import Options, open_source
from indexer.checkpoints.folder import open_run
from indexer.errors import BuildError, CheckpointError, LearningRateError, TaskError, TooLargeError
from indexer.index.store import open_store
from indexer.index.versions import IndexVersion, is_index
from indexer.task import read_rows
from tests.chosen import chosen
from tests.reference import exact_parts, exact_self_influence
from tests.tiny import cross_entropy, tiny_model

IDENTITY = {"name": "identity"}
ROW = 1e-5  # of a row's norm: what another order of float32 sums changes
FLOAT32 = 1e-4  # relative: squares of float32 gradients, some of nearly certain examples

Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def small(task: Task) -> Task:
    """The first 50 digits, none to ask about."""
    return replace(task, train=chosen(task.train, range(50)), test=None)


@pytest.fixture
def spec(run: Path) -> BuildSpec:
    return BuildSpec(run, projection=IDENTITY, batch_size=16)


def vectors(version: IndexVersion) -> np.ndarray:
    return np.concatenate(list(open_store(version.objects, version.manifest.vectors)))


def table(version: IndexVersion) -> dict[str, list[Any]]:
    """The rows of the two tables, sorted."""
    with sqlite3.connect(version.objects.path(version.manifest.examples[0].object)) as connection:
        names = ("example", "self_influence")
        found = {name: sorted(connection.execute(f"SELECT * FROM {name}").fetchall()) for name in names}
    connection.close()
    return found


def leftovers(folder: Path) -> list[str]:
    return [str(path) for path in folder.rglob("*") if path.name.startswith(".new-")]


def test_one_plan_gives_one_index(small: Task, spec: BuildSpec, tmp_path: Path) -> None:
    one, other = (build(small, spec, tmp_path / name) for name in ("one", "other"))
    assert table(one) == table(other)
    without_table = [
        {role: ref for role, ref in version.manifest.objects().items() if role != "examples"}
        for version in (one, other)
    ]
    assert without_table[0] == without_table[1]
    assert one.manifest.model_copy(update={"examples": other.manifest.examples}) == other.manifest


def test_the_folder_holds_what_the_manifest_names_and_nothing_else(index_folder: Path, ask: Ask) -> None:
    version = ask.index.version
    named = {version.objects.path(ref) for ref in version.manifest.objects().values()}
    apart = {"active", "lock", "log.jsonl", f"versions/{version.version}/manifest.json"}
    files = {path for path in index_folder.rglob("*") if path.is_file()}
    assert files == named | {index_folder / name for name in apart}


def test_the_log_alone_holds_the_moment(index_folder: Path, ask: Ask) -> None:
    [line] = (index_folder / "log.jsonl").read_text().splitlines()
    assert json.loads(line).keys() == {"built", "at", "seconds"}
    assert json.loads(line)["built"] == ask.index.version.version


def test_stored_products_are_the_scores_of_the_loop(ask: Ask, task: Task, run: Path) -> None:
    checkpoints = open_run(run).checkpoints
    states = [safetensors.torch.load_file(checkpoint.path) for checkpoint in checkpoints]
    etas = [checkpoint.learning_rates[0] for checkpoint in checkpoints]
    batch = read_rows(task.train, range(20))
    exact = exact_parts((tiny_model(), cross_entropy), states, etas, batch, batch).numpy()
    rows = np.stack([ask.index.store.row(position) for position in range(20)]).astype(np.float64)
    for part, expected in zip(ask.index.method.parts, exact, strict=True):
        found = rows[:, part.start : part.stop] @ rows[:, part.start : part.stop].T
        norms = np.sqrt(np.outer(expected.diagonal(), expected.diagonal()))
        assert (abs(found - expected) <= ROW * norms).all()
    self_influence = [example.self_influence for example in ask.index.examples.listing("train", start=0, count=20)]
    expected = exact_self_influence((tiny_model(), cross_entropy), states, etas, batch)
    np.testing.assert_allclose(self_influence, expected, rtol=FLOAT32)


def test_batches_make_no_difference(small: Task, spec: BuildSpec, tmp_path: Path) -> None:
    found = [vectors(build(small, replace(spec, batch_size=size), tmp_path / str(size))) for size in (7, 50)]
    errors = np.linalg.norm(found[0] - found[1], axis=1)
    assert (errors <= ROW * np.linalg.norm(found[1], axis=1)).all()


def test_the_order_of_rows_makes_no_difference(
    small: Task, spec: BuildSpec, tmp_path: Path, rng: np.random.Generator
) -> None:
    order = rng.permutation(50).tolist()
    asked = chosen(small.train, range(10))
    plain, permuted = replace(small, test=asked), replace(small, test=asked, train=chosen(small.train, order))
    for task, name in ((plain, "plain"), (permuted, "permuted")):
        build(task, spec, tmp_path / name)
    asks = Ask.open(tmp_path / "plain", plain), Ask.open(tmp_path / "permuted", permuted)
    for row in range(10):
        one, other = (ask.query(Question(KnownExample("test", str(row)))) for ask in asks)
        for hits, others in ((one.proponents, other.proponents), (one.opponents, other.opponents)):
            assert [hit.id for hit in hits] == [str(order[int(hit.id)]) for hit in others]
            scores = [hit.score for hit in others]
            assert [hit.score for hit in hits] == pytest.approx(scores, rel=FLOAT32)


def test_progress_tells_every_batch_and_the_examples(small: Task, spec: BuildSpec, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    build(small, spec, tmp_path / "index", lambda *stage: told.append(stage))
    assert told == [*(("vectors", done, 50) for done in (16, 32, 48, 50)), ("examples", 50, 50)]


@pytest.mark.parametrize("stage", ["vectors", "examples"])
def test_a_build_that_dies_leaves_no_index_and_can_be_repeated(
    small: Task, spec: BuildSpec, tmp_path: Path, stage: str
) -> None:
    def dies(now: str, done: int, total: int) -> None:
        if now == stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(small, spec, tmp_path / "index", dies)
    assert not is_index(tmp_path / "index")
    assert not (tmp_path / "index" / "versions").exists()
    assert leftovers(tmp_path) == []
    again, fresh = build(small, spec, tmp_path / "index"), build(small, spec, tmp_path / "fresh")
    assert again.fingerprint == fresh.fingerprint
    Ask.open(tmp_path / "index", small).close()


class Poisoned(Dataset[tuple[Tensor, Tensor]]):
    """Digits, one of them all NaN."""

    def __init__(self, examples: Any, row: int) -> None:
        self.examples, self.row = examples, row

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        inputs, target = self.examples[row]
        return (torch.full_like(inputs, torch.nan) if row == self.row else inputs), target


def test_a_row_without_a_finite_gradient_stops_the_build(small: Task, spec: BuildSpec, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="the vector of training row 33 holds NaN or infinity; look at that example"):
        build(replace(small, train=Poisoned(small.train, 33)), spec, tmp_path / "index")
    assert not is_index(tmp_path / "index")
    assert leftovers(tmp_path) == []
    expected = r"an example that the card asks about has changed .* give the same data, or begin anew with `--restart`"
    with pytest.raises(BuildError, match=expected):
        build(small, spec, tmp_path / "index")
    assert is_index(build(small, spec, tmp_path / "index", restart=True).folder)


def test_a_finished_index_is_not_built_over(small: Task, spec: BuildSpec, index_folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in index_folder.rglob("*")}
    with pytest.raises(BuildError, match="already holds an index; build into another folder, or remove this one first"):
        build(small, spec, index_folder)
    assert before == {path: path.stat().st_mtime_ns for path in index_folder.rglob("*")}


def test_too_large_an_index_is_refused_before_anything_is_written(
    small: Task, spec: BuildSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sysconf", {"SC_PHYS_PAGES": 10, "SC_PAGE_SIZE": 4096}.__getitem__)
    with pytest.raises(TooLargeError, match=r"the build takes .* of memory; this machine has 0\.0 MiB\. Index fewer"):
        build(small, spec, tmp_path / "index")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"method": "magic"}, "unknown method 'magic'; expected one of tracin"),
        ({"projection": {"name": "magic"}}, "unknown projection 'magic'; expected one of identity, gaussian, rank1"),
        ({"projection": {"name": "pca", "numbers": 64}}, r"'pca' does not take the parameters \['bytes', 'numbers'\]"),
        ({"projection": {"name": "pca", "sample": 1}}, "pca with sample=1: expected at least 2 training examples"),
        ({"projection": {"name": "identity", "seed": 1}}, r"'identity' does not take the parameters \['seed'\]"),
        ({"projection": {"name": "gaussian", "numbers": 0}}, "gaussian with numbers=0: expected at least 1"),
    ],
)
def test_an_unknown_choice_is_refused_before_anything_is_written(
    small: Task, spec: BuildSpec, tmp_path: Path, wrong: dict[str, Any], expected: str
) -> None:
    with pytest.raises(BuildError, match=expected):
        build(small, replace(spec, **wrong), tmp_path / "index")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "error", "expected"),
    [
        (
            lambda entry: entry.pop("learning_rate"),
            LearningRateError,
            r"1 of 3 \('epoch-01\.safetensors'\) has no learn",
        ),
        (lambda entry: entry.update(learning_rate=0), LearningRateError, "has learning_rate 0.0; expected a positive"),
        (lambda entry: entry.update(file="none.pt"), CheckpointError, r"1 of 3 \('none\.pt'\) does not exist in"),
        (lambda entry: entry.update(file="checkpoints.json"), CheckpointError, "cannot be read as weights only"),
    ],
)
def test_a_wrong_listing_stops_the_build(
    small: Task, run: Path, copy_of: Callable[[Path], Path], change: Change, error: type[Exception], expected: str
) -> None:
    folder = copy_of(run)
    listing = json.loads((folder / "checkpoints.json").read_text())
    change(listing["checkpoints"][0])
    (folder / "checkpoints.json").write_text(json.dumps(listing))
    with pytest.raises(error, match=expected):
        build(small, BuildSpec(folder, projection=IDENTITY), folder.parent / "index")
    assert not (folder.parent / "index").exists()


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({"5.bias": torch.zeros(11)}, r"2 of 3 \('epoch-03.*'\): expected '5\.bias' of shape \(10,\) .* found \(11,\)"),
        ({"6.bias": torch.zeros(10)}, r"2 of 3 \('epoch-03.*'\) has '6\.bias', which the task's model has not"),
        ({"5.bias": None}, r"2 of 3 \('epoch-03.*'\) has no '5\.bias', which the task's model has"),
        ({"5.bias": torch.full((10,), torch.nan)}, r"2 of 3 \('epoch-03.*'\): '5\.bias' holds NaN or infinity"),
    ],
    ids=["shape", "extra", "missing", "NaN"],
)
def test_a_checkpoint_of_another_model_is_named(
    small: Task, run: Path, copy_of: Callable[[Path], Path], state: dict[str, Tensor | None], expected: str
) -> None:
    folder = copy_of(run)
    path = folder / "epoch-03.safetensors"
    changed = {**safetensors.torch.load(path.read_bytes()), **state}
    safetensors.torch.save_file({name: tensor for name, tensor in changed.items() if tensor is not None}, path)
    with pytest.raises(CheckpointError, match=expected):
        build(small, BuildSpec(folder, projection=IDENTITY), folder.parent / "index")


def test_three_examples_are_too_few(small: Task, spec: BuildSpec, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="expected at least 4 training examples, found 3"):
        build(replace(small, train=chosen(small.train, range(3))), spec, tmp_path / "index")


class Augmented(Poisoned):
    """Digits with fresh noise at every reading."""

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        inputs, target = self.examples[row]
        return inputs + torch.rand_like(inputs), target


def test_random_augmentation_is_refused(small: Task, spec: BuildSpec, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"task\.train gives another input when the same row is read again; leave rand"):
        build(replace(small, train=Augmented(small.train, 0)), spec, tmp_path / "index")


def test_labels_that_do_not_fit_the_outputs_stop_the_build(small: Task, spec: BuildSpec, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="the model has 10 outputs and the task 12 labels; expected one label an"):
        build(replace(small, labels=list("0123456789ab")), spec, tmp_path / "index")
    with pytest.raises(TaskError, match="row 0 of split 'train': target 6 has no name: the task has 2 labels, 0 to 1"):
        build(replace(small, labels=["0", "1"]), spec, tmp_path / "index")
    assert not is_index(tmp_path / "index")


def test_a_source_keeps_the_learning_rates_in_order(small: Task, run: Path) -> None:
    source = open_source(small, open_run(run), Options(torch.float64))
    names = ["1.weight", "1.bias", "5.weight", "5.bias"]
    assert source.etas == (dict.fromkeys(names, 0.1),) * 3
    assert len(source.model) == len(source.weights.files) == 3
    assert source.model.dtype == torch.float64
