"""An index with coded vectors opens, answers from decoded rows in both views, and still knows another task."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from indexer import Ask, KnownExample, Question, Task
from indexer.ask.opening import VECTOR_TOLERANCE, open_index
from indexer.errors import CorruptIndexError, TaskMismatchError
from indexer.index.examples import Examples
from indexer.index.fit_code import fit_code
from indexer.index.manifest import CodeEntry, VectorsEntry
from indexer.index.store import VectorWriter, open_store
from indexer.index.versions import commit, open_version
from indexer.methods.method import TrainRows
from indexer.methods.tracin import TracIn

BYTES = 512  # of 4,920: the score of a whole vector errs by a hundredth of its size
ELSEWHERE = VECTOR_TOLERANCE / 4  # of a row's norm: far more than float32 gradients of another machine differ


@pytest.fixture
def coded(index_folder: Path, copy_of: Callable[[Path], Path]) -> Path:
    """The tiny index with the same vectors, coded."""
    folder = copy_of(index_folder)
    version = open_version(folder)
    vectors = np.concatenate(list(open_store(version.objects, version.manifest.vectors)))
    examples = Examples([version.objects.path(version.manifest.examples[0].object)])
    scales = np.sqrt([sum(example.self_influence) for example in examples.at(range(len(vectors)))])
    examples.close()
    code = fit_code(vectors, scales, BYTES)
    writer = VectorWriter(version.objects, code.width, code)
    writer.add(vectors, scales)
    entry = version.manifest.vectors
    fields = dict(entry) | {
        "dtype": "coded",
        "shards": writer.finish(),
        "code": CodeEntry(object=version.objects.add(code.tensors()), row_bytes=code.row_bytes),
    }
    commit(folder, version.manifest.model_copy(update={"vectors": VectorsEntry.model_validate(fields)}))
    return folder


def test_scores_are_those_of_decoded_rows(coded: Path, task: Task) -> None:
    ask = Ask.open(coded, task)
    ranking = ask.query(Question(KnownExample("test", "3"), k=300))
    query = ask.index.method.query_vectors(task_batch(task, 3, ranking.query.label))[0].double().numpy()[0]
    scores = np.concatenate(list(ask.index.store)).astype(np.float64) @ query
    for hits, sign in ((ranking.proponents, -1), (ranking.opponents, 1)):
        assert len(hits) == 300
        assert [hit.score for hit in hits] == pytest.approx(sorted(scores, key=lambda x: sign * x), rel=1e-9)
        assert [hit.score for hit in hits] == pytest.approx([scores[int(hit.id)] for hit in hits], rel=1e-9)
    ask.close()


def task_batch(task: Task, row: int, label: str | None) -> tuple[Tensor, Tensor]:
    assert task.test is not None and label is not None
    return task.test[row][0][None], task.target_of(label)[None]


def test_the_normalised_view_is_over_the_norms_of_gradients(coded: Path, task: Task) -> None:
    opened = open_index(coded, task)
    rows = np.concatenate(list(opened.store)).astype(np.float64)
    query = rows[:1] + rows[7:8]
    [found] = opened.search.search(query, 5, "normalised")
    norms = np.sqrt([sum(example.self_influence) for example in opened.examples.at(range(300))])
    assert found.proponents[:5] == np.argsort(-(rows @ query[0]) / norms)[:5].tolist()
    opened.examples.close()


@pytest.fixture
def changed(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Tensor], Tensor]], None]:
    """Return a function that changes the vectors that are made when an index is opened."""
    made = TracIn.train_rows

    def change(by: Callable[[Tensor], Tensor]) -> None:
        def train_rows(self: TracIn, batch: tuple[Tensor, Tensor], asked: None = None) -> TrainRows:
            rows = made(self, batch, asked)
            return replace(rows, vectors=by(rows.vectors))

        monkeypatch.setattr(TracIn, "train_rows", train_rows)

    return change


def rounded(vectors: Tensor) -> Tensor:
    """Vectors as another machine might make them."""
    noise = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(0))
    found: Tensor = vectors + ELSEWHERE * vectors.norm(dim=1, keepdim=True) * noise / vectors.shape[1] ** 0.5
    return found


def test_rounding_elsewhere_is_no_other_task(
    coded: Path, index_folder: Path, task: Task, changed: Callable[[Callable[[Tensor], Tensor]], None]
) -> None:
    """Numbers next to the border of two codes fall to its other side: coded again, rows differ by whole steps."""
    changed(rounded)
    opened = open_index(coded, task)
    version = open_version(index_folder)
    whole = np.concatenate(list(open_store(version.objects, version.manifest.vectors)))
    code, scales = opened.store.code, opened.store.scales()
    assert code is not None
    again = code.decode(code.encode(rounded(torch.from_numpy(whole)).numpy(), scales))
    differ = np.linalg.norm(again - np.concatenate(list(opened.store)), axis=1) / scales
    assert np.median(differ) > VECTOR_TOLERANCE > ELSEWHERE
    opened.examples.close()


OTHERS: dict[str, Callable[[Tensor], Tensor]] = {
    "scaled": lambda vectors: 1.5 * vectors,
    "negated": lambda vectors: -vectors,
    "shifted": lambda vectors: vectors.roll(1, dims=1),
    "of other rows": lambda vectors: vectors.roll(1, dims=0),
    "noisy": lambda vectors: vectors + 0.02 * vectors.norm(dim=1, keepdim=True) * torch.randn(vectors.shape),
}


@pytest.mark.parametrize("other", OTHERS)
def test_other_vectors_are_of_another_task(
    coded: Path, task: Task, changed: Callable[[Callable[[Tensor], Tensor]], None], other: str
) -> None:
    changed(OTHERS[other])
    with pytest.raises(TaskMismatchError, match="the vectors of the probe examples differ by"):
        open_index(coded, task)


def test_other_norms_are_of_another_task(coded: Path, task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    made = TracIn.train_rows

    def train_rows(self: TracIn, batch: tuple[Tensor, Tensor]) -> TrainRows:
        rows = made(self, batch)
        assert rows.self_influence is not None
        return replace(rows, self_influence=(1 + 4 * VECTOR_TOLERANCE) * rows.self_influence)

    monkeypatch.setattr(TracIn, "train_rows", train_rows)
    with pytest.raises(TaskMismatchError, match="the vectors of the probe examples differ by"):
        open_index(coded, task)


def test_damage_to_the_code_is_refused_by_its_name(coded: Path, task: Task) -> None:
    version = open_version(coded)
    path = version.objects.path(version.manifest.objects()["code of the vectors"])
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptIndexError, match=f"code of the vectors: the bytes of {path} have changed"):
        open_index(coded, task)
