"""A method that is not symmetric goes through build, store, search and ask without a change to any of them."""

from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from indexer import Ask, KnownExample, Question, Task
from indexer.checkpoints.weights import read_weights
from indexer.errors import CorruptIndexError
from indexer.methods.method import Method, MethodKind
from indexer.methods.registry import METHODS
from indexer.task import read_rows
from tests.reference import in_blocks, in_float64, loop_gradients_by_name, top_k
from tests.toy import ToyKind, toy_index

FLOAT32 = 1e-4  # relative: a dot product of 370 float32 numbers, many times larger than their sum


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, task: Task, run: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(METHODS, "toy", ToyKind())
        return toy_index(tmp_path_factory.mktemp("indexes") / "toy", task, run)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch, folder: Path, task: Task) -> Ask:
    monkeypatch.setitem(METHODS, "toy", ToyKind())
    return Ask.open(folder, task)


def matrix(toy: Ask) -> Tensor:
    """A, as the index keeps it."""
    version = toy.index.version
    assert version.manifest.method.fitted is not None
    return safetensors.torch.load(version.objects.read(version.manifest.method.fitted, "fitted"))["matrix"].double()


def last_layer_gradients(toy: Ask, run: Path, batch: tuple[Tensor, Tensor]) -> Tensor:
    """The gradient of the last block at the last checkpoint, by the loop."""
    module = in_float64(toy.task.model(), read_weights(run / "epoch-06.safetensors"))
    layout = toy.index.model.layout
    return in_blocks(layout, loop_gradients_by_name(module, toy.task.loss, *batch))[layout.blocks[-1].name].flatten(1)


def test_the_toy_is_a_method_and_not_symmetric(toy: Ask) -> None:
    assert isinstance(ToyKind(), MethodKind)
    assert isinstance(toy.index.method, Method)
    a = matrix(toy)
    assert a.shape == (370, 370)
    assert (a - a.T).norm() > a.norm()


def test_scores_are_the_bilinear_form_of_the_loop_gradients(toy: Ask, run: Path) -> None:
    assert toy.task.test is not None
    train, asked = read_rows(toy.task.train, range(300)), read_rows(toy.task.test, range(5))
    exact = last_layer_gradients(toy, run, asked) @ matrix(toy) @ last_layer_gradients(toy, run, train).T
    ids = [str(row) for row in range(300)]
    for row, scores in enumerate(exact):
        label = toy.task.label_of(asked[1][row])
        ranking = toy.query(Question(KnownExample("test", str(row)), label=label))
        assert ranking.method == "toy"
        opposed = [(id, -score) for id, score in top_k(-scores, 10, ids)]
        for hits, expected in ((ranking.proponents, top_k(scores, 10, ids)), (ranking.opponents, opposed)):
            assert [hit.id for hit in hits] == [id for id, _ in expected]
            assert [hit.score for hit in hits] == pytest.approx([score for _, score in expected], rel=FLOAT32)
            assert all(hit.per_checkpoint == (hit.score,) and hit.self_influence is None for hit in hits)


def test_exact_scores_are_the_products_of_the_vectors(toy: Ask) -> None:
    queries, train = read_rows(toy.task.train, range(3)), read_rows(toy.task.train, range(3, 10))
    [(scores, _)] = toy.index.method.exact(queries, [train])
    vectors, losses = toy.index.method.query_vectors(queries)
    torch.testing.assert_close(scores, toy.index.method.train_rows(train).vectors @ vectors.T)
    torch.testing.assert_close(losses[:, 0], toy.task.loss(toy.index.model.outputs(2, queries[0]), queries[1]))


def test_without_self_influence_there_is_no_list_of_it(toy: Ask) -> None:
    assert list(toy.index.examples.self_influence()) == []


def test_a_method_that_is_not_registered_cannot_be_opened(folder: Path, task: Task) -> None:
    with pytest.raises(CorruptIndexError, match="unknown method 'toy'; expected one of tracin; was it built by"):
        Ask.open(folder, task)


def test_the_fitted_tensor_is_verified_with_the_index(toy: Ask) -> None:
    assert "fitted tensors" in dict(toy.index.version.verify())
