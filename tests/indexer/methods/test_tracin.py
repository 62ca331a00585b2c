"""TracInCP against the loop: vectors whose products are the scores, exact products, self-influence, and the sign."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from indexer.gradients.at_checkpoints import ModelAtCheckpoints
from indexer.gradients.probe import probe
from indexer.methods.method import Batch
from indexer.methods.tracin import TracIn
from indexer.methods.tracin_kind import TracInKind
from indexer.task import read_rows
from tests.reference import exact_parts, exact_scores, exact_self_influence, in_float64, relative_error
from tests.tiny import cross_entropy, tiny_model, tiny_task

DOUBLE = 1e-10  # float64: rounding of sums over a few thousand terms is below 1e-13
SINGLE = 1e-5  # float32: the same sums round at 1e-7 and lose a digit or two
PRECISIONS = pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, DOUBLE), (torch.float32, SINGLE)])

ETAS = (0.1, 0.03, 0.7)
IDENTITY = {"name": "identity"}
PCA = {"name": "pca", "bytes": 128}
DRAWN = [IDENTITY, {"name": "gaussian", "numbers": 32}, {"name": "rank1", "numbers": 256}]


def by_name(projection: dict[str, Any]) -> str:
    return str(projection["name"])


UNFITTED = pytest.mark.parametrize("projection", DRAWN, ids=by_name)
PROJECTIONS = pytest.mark.parametrize("projection", [*DRAWN, PCA], ids=by_name)

States = list[dict[str, Tensor]]


@pytest.fixture(scope="module")
def digits() -> tuple[Batch, Batch]:
    """40 training digits and 5 queries."""
    task = tiny_task(40)
    assert task.test is not None
    return read_rows(task.train, range(40)), read_rows(task.test, range(5))


@pytest.fixture
def states() -> States:
    """Three checkpoints with random weights."""
    return [dict(tiny_model().state_dict()) for _ in ETAS]


def equal(model: ModelAtCheckpoints, etas: Sequence[float]) -> list[dict[str, float]]:
    """One eta a checkpoint, for all parameters."""
    return [dict.fromkeys(model.parameters, eta) for eta in etas]


def tracin(
    states: States,
    projection: dict[str, Any],
    etas: Sequence[float] = ETAS,
    dtype: torch.dtype = torch.float64,
) -> TracIn:
    """TracInCP of the tiny network at some checkpoints, fitted on 40 images of noise where it is fitted."""
    layout = probe(tiny_model(), cross_entropy, (torch.rand(4, 1, 28, 28), torch.arange(4)))
    model = ModelAtCheckpoints(tiny_model(), states, cross_entropy, layout, dtype=dtype)
    noise = torch.rand(40, 1, 28, 28), torch.arange(40) % 10
    parameters = {"projection": projection}
    fitted = TracInKind().fit(model, equal(model, etas), parameters, lambda: [noise], None)
    return TracInKind().open(model, equal(model, etas), parameters, fitted.tensors)


def scores(method: TracIn, train: Batch, queries: Batch) -> Tensor:
    """Query vectors times train vectors, [q, n]."""
    return method.query_vectors(queries)[0] @ method.train_rows(train).vectors.T


@PRECISIONS
def test_products_of_exact_vectors_are_the_scores(
    states: States, digits: tuple[Batch, Batch], dtype: torch.dtype, tolerance: float
) -> None:
    train, queries = digits
    expected = exact_scores((tiny_model(), cross_entropy), states, ETAS, queries, train)
    assert relative_error(scores(tracin(states, IDENTITY, dtype=dtype), train, queries), expected) < tolerance


@PRECISIONS
def test_streamed_products_are_the_scores(
    states: States, digits: tuple[Batch, Batch], dtype: torch.dtype, tolerance: float
) -> None:
    (inputs, targets), queries = digits
    batches = [(inputs[:1], targets[:1]), (inputs[1:17], targets[1:17]), (inputs[17:], targets[17:])]
    method = tracin(states, {"name": "rank1", "numbers": 64}, dtype=dtype)
    found = list(method.exact(queries, iter(batches)))
    assert [len(rows) for rows, _ in found] == [1, 16, 23]
    expected = exact_scores((tiny_model(), cross_entropy), states, ETAS, queries, digits[0])
    norms = exact_self_influence((tiny_model(), cross_entropy), states, ETAS, digits[0])
    assert relative_error(torch.cat([rows for rows, _ in found]), expected.T) < tolerance
    assert relative_error(torch.cat([rows for _, rows in found]), norms) < tolerance


@PROJECTIONS
@PRECISIONS
def test_scores_that_are_asked_for_in_a_pass_are_exact(
    states: States, digits: tuple[Batch, Batch], projection: dict[str, Any], dtype: torch.dtype, tolerance: float
) -> None:
    train, queries = digits
    method = tracin(states, projection, dtype=dtype)
    rows, plain = method.train_rows(train, method.asked(queries)), method.train_rows(train)
    expected = exact_scores((tiny_model(), cross_entropy), states, ETAS, queries, train)
    [(streamed, _)] = method.exact(queries, [train])
    assert rows.scores is not None and plain.scores is None
    assert relative_error(rows.scores, expected.T) < tolerance
    assert relative_error(rows.scores, streamed) < tolerance
    assert relative_error(rows.vectors, plain.vectors) < tolerance  # asking changes nothing else
    assert rows.self_influence is not None and plain.self_influence is not None
    assert relative_error(rows.self_influence, plain.self_influence) < tolerance


def test_scores_do_not_depend_on_how_a_batch_is_cut(
    states: States, digits: tuple[Batch, Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    (inputs, targets), queries = digits
    method = tracin(states, {"name": "rank1", "numbers": 64})
    asked = method.asked(queries)
    monkeypatch.setattr("indexer.gradients.block.CHUNK", 2000)  # a few examples of each block at a time
    found = [
        method.train_rows(batch, asked).scores
        for batch in zip(torch.split(inputs, 7), torch.split(targets, 7), strict=True)
    ]
    expected = exact_scores((tiny_model(), cross_entropy), states, ETAS, queries, digits[0])
    assert relative_error(torch.cat([part for part in found if part is not None]), expected.T) < DOUBLE


@PROJECTIONS
def test_self_influence_is_exact_under_every_projection(
    states: States, digits: tuple[Batch, Batch], projection: dict[str, Any]
) -> None:
    train, _ = digits
    found = tracin(states, projection).train_rows(train).self_influence
    assert found is not None and (found >= 0).all()
    expected = exact_self_influence((tiny_model(), cross_entropy), states, ETAS, train)
    assert relative_error(found, expected) < DOUBLE


def test_parts_are_the_scores_by_checkpoint(states: States, digits: tuple[Batch, Batch]) -> None:
    train, queries = digits
    method = tracin(states, IDENTITY)
    asked, rows = method.query_vectors(queries)[0], method.train_rows(train).vectors
    parts = [asked[:, part.start : part.stop] @ rows[:, part.start : part.stop].T for part in method.parts]
    expected = exact_parts((tiny_model(), cross_entropy), states, ETAS, queries, train)
    assert relative_error(torch.stack(parts), expected) < DOUBLE
    assert [part.name for part in method.parts] == ["checkpoint 1", "checkpoint 2", "checkpoint 3"]
    assert (method.parts[0].start, method.parts[-1].stop) == (0, rows.shape[1])
    assert all(a.stop == b.start for a, b in zip(method.parts, method.parts[1:], strict=False))


@PROJECTIONS
def test_train_and_query_vectors_of_an_example_are_the_same(
    states: States, digits: tuple[Batch, Batch], projection: dict[str, Any]
) -> None:
    _, queries = digits
    method = tracin(states, projection)
    assert relative_error(method.query_vectors(queries)[0], method.train_rows(queries).vectors) < DOUBLE


@PROJECTIONS
def test_batch_size_and_order_do_not_matter(
    states: States, digits: tuple[Batch, Batch], projection: dict[str, Any]
) -> None:
    (inputs, targets), _ = digits
    method = tracin(states, projection, dtype=torch.float32)
    together = method.train_rows((inputs, targets))
    order = torch.randperm(40)
    for size in (1, 7):
        rows = [
            method.train_rows((x, y))
            for x, y in zip(torch.split(inputs[order], size), torch.split(targets[order], size), strict=True)
        ]
        vectors = torch.cat([part.vectors for part in rows])
        difference = (vectors - together.vectors[order]).norm(dim=1) / together.vectors[order].norm(dim=1)
        assert difference.max() < SINGLE
        assert together.self_influence is not None
        norms = torch.cat([part.self_influence for part in rows if part.self_influence is not None])
        assert relative_error(norms, together.self_influence[order]) < SINGLE


def test_query_values_are_the_losses_at_every_checkpoint(states: States, digits: tuple[Batch, Batch]) -> None:
    _, (inputs, targets) = digits
    _, values = tracin(states, IDENTITY).query_vectors((inputs, targets))
    for i, state in enumerate(states):
        outputs = in_float64(tiny_model(), state)(inputs.double()).detach()
        assert relative_error(values[:, i], cross_entropy(outputs, targets)) < DOUBLE


@UNFITTED
def test_scores_are_linear_in_the_learning_rate(
    states: States, digits: tuple[Batch, Batch], projection: dict[str, Any]
) -> None:
    train, queries = digits
    one = tracin(states[:1], projection, etas=(1.0,))
    for eta in (0.01, 4.0):  # a square root or a square would give other factors
        scaled = tracin(states[:1], projection, etas=(eta,))
        assert relative_error(scores(scaled, train, queries), eta * scores(one, train, queries)) < DOUBLE
        found, expected = scaled.train_rows(train).self_influence, one.train_rows(train).self_influence
        assert found is not None and expected is not None
        assert relative_error(found, eta * expected) < DOUBLE


def test_roots_and_gradients_make_the_score(states: States, digits: tuple[Batch, Batch]) -> None:
    """What bases are fitted on: gradients without eta, and the roots of eta beside them."""
    train, queries = digits
    method = tracin(states, IDENTITY)
    expected = exact_parts((tiny_model(), cross_entropy), states, ETAS, queries, train)
    for i, eta in enumerate(ETAS):
        roots = method.roots(i)
        here, asked = method.gradients(i, train), method.gradients(i, queries)
        assert here.keys() == roots.keys()
        assert all(float(root.square()) == pytest.approx(eta) for root in roots.values())
        products = torch.stack([roots[name].square() * asked[name].dot(here[name]) for name in here]).sum(0)
        assert relative_error(products, expected[i]) < DOUBLE


def test_checkpoints_are_concatenated_and_not_summed(states: States, digits: tuple[Batch, Batch]) -> None:
    train, queries = digits
    method = tracin(states, IDENTITY)
    asked, rows = method.query_vectors(queries)[0], method.train_rows(train).vectors
    summed = asked.reshape(5, 3, -1).sum(1) @ rows.reshape(40, 3, -1).sum(1).T
    expected = exact_scores((tiny_model(), cross_entropy), states, ETAS, queries, train)
    assert relative_error(summed, expected) > 0.01
    assert relative_error(asked @ rows.T, expected) < DOUBLE


def test_the_bias_counts() -> None:
    module = nn.Linear(6, 3).double()
    batch = torch.zeros(4, 6, dtype=torch.float64), torch.arange(4) % 3  # only the bias has a gradient
    layout = probe(nn.Linear(6, 3), cross_entropy, batch)
    state = {name: tensor.detach() for name, tensor in module.named_parameters()}
    model = ModelAtCheckpoints(module, [state], cross_entropy, layout, dtype=torch.float64)
    method = TracInKind().open(model, equal(model, [1.0]), {"projection": IDENTITY}, {})
    delta = module(batch[0]).softmax(1).detach() - nn.functional.one_hot(batch[1], 3)
    assert relative_error(scores(method, batch, batch), delta @ delta.T) < DOUBLE


def test_one_step_on_z_lowers_the_query_loss_by_the_score_to_first_order(digits: tuple[Batch, Batch]) -> None:
    torch.manual_seed(1)
    module = nn.Sequential(nn.Flatten(), nn.Linear(784, 6), nn.Tanh(), nn.Linear(6, 10)).double()
    (inputs, targets), (asked, labels) = digits
    inputs, asked = inputs.double(), asked.double()
    layout = probe(module, cross_entropy, (inputs[:4], targets[:4]))
    state = {name: tensor.detach().clone() for name, tensor in module.named_parameters()}

    def lowered(row: int, eta: float) -> Tensor:
        """The loss of every query before, less that after one step of SGD on one training example."""
        stepped = in_float64(module, state)
        optimizer = torch.optim.SGD(stepped.parameters(), lr=eta)
        torch.autograd.backward(cross_entropy(stepped(inputs[row : row + 1]), targets[row : row + 1]).sum())
        before = cross_entropy(stepped(asked), labels).detach()
        optimizer.step()
        return before - cross_entropy(stepped(asked), labels).detach()

    def largest_error(eta: float) -> tuple[float, float]:
        """Over all pairs: |loss lowered - score|, and |score|."""
        model = ModelAtCheckpoints(in_float64(module), [state], cross_entropy, layout, dtype=torch.float64)
        method = TracInKind().open(model, equal(model, [eta]), {"projection": IDENTITY}, {})
        predicted = scores(method, (inputs[:10], targets[:10]), (asked, labels))
        actual = torch.stack([lowered(row, eta) for row in range(10)], dim=1)
        return (actual - predicted).norm().item(), predicted.norm().item()

    (coarse, size), (fine, _) = largest_error(1e-3), largest_error(5e-4)
    assert coarse < 0.1 * size
    assert coarse / fine == pytest.approx(4, rel=0.1)  # half the step, a quarter of the error


def test_the_ten_classes_are_not_projected(states: States) -> None:
    method = tracin(states, {"name": "rank1", "numbers": 256})
    assert set(method.random_check) == {f"{i}/5.weight/right" for i in range(3)}  # 10 classes, and 4 filters, stay
    assert method.parts[0].stop == 4 * 10 + 10 * 12


@pytest.mark.parametrize("name", ["gaussian", "rank1"])
def test_the_heads_of_the_random_matrices_are_kept(states: States, name: str) -> None:
    method = tracin(states, {"name": name, "numbers": 64, "seed": 3}, dtype=torch.float32)
    heads = method.random_check
    assert {len(head) for head in heads.values()} == {8}
    assert len({tuple(head) for head in heads.values()}) == len(heads)  # other numbers at every checkpoint
    assert heads == tracin(states, {"name": name, "numbers": 64, "seed": 3}, dtype=torch.float32).random_check
    assert heads != tracin(states, {"name": name, "numbers": 64, "seed": 4}, dtype=torch.float32).random_check


def test_what_the_method_says_of_itself(states: States) -> None:
    exact, sketched = tracin(states, IDENTITY), tracin(states, {"name": "rank1", "numbers": 64})
    assert exact.explains == sketched.explains == {"loss"}
    assert exact.exact_vectors and not sketched.exact_vectors
    assert exact.random_check == {}
    fitted = tracin(states, PCA)
    assert not fitted.exact_vectors and fitted.random_check == {}
    assert fitted.parameters == {"projection": {"name": "pca", "bytes": 128, "sample": 2000, "seed": 0}}
