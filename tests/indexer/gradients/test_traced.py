"""Traced passes: when a graph is made, kept, refused and forgotten."""

import gc
import math
import threading
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.nn import functional as F

from indexer.gradients import traced
from indexer.gradients.at_checkpoints import ModelAtCheckpoints
from indexer.gradients.capture import Gradients
from indexer.gradients.traced import LIMIT, TracedPasses
from tests.reference import relative_error
from tests.tiny import cross_entropy
from tests.traceable import (
    NO_TENSORS,
    Batch,
    Remembering,
    at_two_states,
    by_loop,
    concatenated,
    factored,
    numbers,
    stacked_layers,
)

DOUBLE = 1e-10  # float64: rounding of sums over a few hundred terms is below 1e-14


def test_a_constant_of_the_loss_is_kept_by_reference() -> None:
    weights = torch.ones(3, dtype=torch.float64)

    def weighted(outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets, weights, reduction="none")

    model, modules = at_two_states(stacked_layers, weighted, numbers())
    example = numbers(1)
    model.at_all(example, concatenated, NO_TENSORS)
    weights[0] = 5
    found, _ = model.at_all(example, concatenated, NO_TENSORS)
    assert model.untraced is None
    assert relative_error(found, by_loop(model, modules, example)) < DOUBLE


def test_weights_and_matrices_are_arguments_also_whole_numbers() -> None:
    model, example = factored()

    def chosen(gradients: Gradients, matrices: Mapping[str, Tensor]) -> Tensor:
        whole = concatenated(gradients, matrices)
        return matrices["factor"] * torch.gather(whole, 1, matrices["places"].expand(len(whole), -1))

    whole, _ = model.at_all(example, concatenated, NO_TENSORS)
    for factor, first in ((2.0, 0), (3.0, 7)):
        places = torch.stack([torch.arange(5) + first, torch.arange(5)])
        factors = torch.tensor([factor, 1.0], dtype=torch.float64)
        found, _ = model.at_all(example, chosen, {"factor": factors, "places": places})
        assert model.untraced is None
        assert relative_error(found[0], factor * whole[0, :, first : first + 5]) < DOUBLE
        assert relative_error(found[1], whole[1, :, :5]) < DOUBLE
    for outcome in model._traced._outcomes:
        assert outcome.graph is not None
        assert list(outcome.graph.state_dict()) == []
        assert not [value for value in vars(outcome.graph).values() if isinstance(value, Tensor)]


def test_another_objective_and_another_shape_have_graphs_of_their_own() -> None:
    model, example = factored()

    def doubled(outputs: Tensor, targets: Tensor) -> Tensor:
        return 2 * cross_entropy(outputs, targets)

    once, _ = model.at_all(example, concatenated, NO_TENSORS)
    twice, values = model.at_all(example, concatenated, NO_TENSORS, doubled)
    column, _ = model.at_all(example, concatenated, {"any": torch.zeros(2, 1)})
    assert relative_error(twice, 2 * once) < DOUBLE
    assert torch.equal(column, once)
    assert values.shape == (2, 1)
    assert len(model._traced._outcomes) == 3


class Holder:
    """Has matrices and makes vectors, as a method does."""

    def vectors(self, gradients: Gradients, _: Mapping[str, Tensor]) -> Tensor:
        """Return one number a block."""
        return torch.stack([gradient.square_norm() for gradient in gradients.values()], dim=1)


def test_a_method_is_known_again_and_not_kept_alive() -> None:
    (model, example), holder = factored(), Holder()
    before, _ = model.at_all(example, holder.vectors, NO_TENSORS)
    after, _ = model.at_all(example, holder.vectors, NO_TENSORS)
    assert torch.equal(before, after)
    assert len(model._traced._outcomes) == 1
    alive = weakref.ref(holder)
    del holder
    gc.collect()
    assert alive() is None
    model.at_all(example, concatenated, NO_TENSORS)
    assert len(model._traced._outcomes) == 1


def test_the_least_recently_used_graph_goes() -> None:
    model, example = factored()
    holders = [Holder() for _ in range(LIMIT + 1)]
    for holder in (*holders[:LIMIT], holders[0], holders[LIMIT]):
        model.at_all(example, holder.vectors, NO_TENSORS)
    kept = [outcome.functions[0]() for outcome in model._traced._outcomes]
    assert kept == [holder.vectors for holder in (*holders[2:LIMIT], holders[0], holders[LIMIT])]


def test_a_graph_runs_on_another_thread_than_its_tracer_with_any_number_of_threads() -> None:
    model, example = factored()
    here, _ = model.at_all(example, concatenated, NO_TENSORS)

    def there() -> Tensor:
        torch.set_num_threads(2)
        return model.at_all(example, concatenated, NO_TENSORS)[0]

    with ThreadPoolExecutor(1) as pool:
        assert torch.equal(pool.submit(there).result(), here)
    assert model.untraced is None


def test_other_threads_go_on_while_one_traces() -> None:
    module, inputs, done = stacked_layers().double().eval(), numbers(1)[0], threading.Event()
    expected, forward = module(inputs), nn.Module.__call__
    with ThreadPoolExecutor(3) as pool:

        def busy() -> bool:
            alike = True
            while not done.is_set():
                alike = alike and torch.equal(module(inputs), expected)
            return alike

        def ask(model: ModelAtCheckpoints, example: Batch) -> str | None:
            model.at_all(example, concatenated, NO_TENSORS)
            return model.untraced

        running = pool.submit(busy)
        reasons = [pool.submit(ask, *factored()) for _ in range(2)]
        found = [reason.result() for reason in reasons]
        done.set()
        assert running.result()
    assert found == [None, None]
    assert nn.Module.__call__ is forward


def test_what_the_module_remembers_is_not_a_stand_in() -> None:
    model, _ = at_two_states(Remembering, cross_entropy, numbers())
    model.at_all(numbers(1), concatenated, NO_TENSORS)
    model.outputs(0, numbers(1)[0])
    module = model._module
    assert isinstance(module, Remembering) and module.last is not None
    assert type(module.last) is Tensor
    assert module.last.isfinite().all() and all(type(table) is Tensor for table in module.tables.values())


@pytest.mark.parametrize(("on", "example"), [("always", "the traced"), ("later", "another")])
def test_a_graph_that_gives_something_else_is_not_used(on: str, example: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, question = factored()
    right = traced._graph

    def wrong(flat: Callable[..., traced.Found], tensors: list[Tensor]) -> GraphModule:
        def other(x: Tensor, *rest: Tensor) -> traced.Found:
            vectors, values = flat(x, *rest)
            off = torch.ones_like(x).sum() if on == "always" else (x - question[0]).abs().sum()
            return vectors + off, values

        return right(other, tensors)

    expected, _ = model._together(concatenated, model.loss, question, model._stacked, NO_TENSORS)
    monkeypatch.setattr(traced, "_graph", wrong)
    found, _ = model.at_all(question, concatenated, NO_TENSORS)
    assert model.untraced == f"its graph gives something else on {example} example"
    assert torch.equal(found, expected)


def test_a_graph_that_fails_later_is_passed_by(monkeypatch: pytest.MonkeyPatch) -> None:
    model, example = factored()
    expected, _ = model.at_all(example, concatenated, NO_TENSORS)
    [outcome] = model._traced._outcomes
    assert outcome.graph is not None

    def failing(*_: Tensor) -> traced.Found:
        raise RuntimeError("view is not possible\nhere")

    monkeypatch.setattr(outcome.graph, "forward", failing)
    found, _ = model.at_all(example, concatenated, NO_TENSORS)
    assert model.untraced == "its graph fails: RuntimeError: view is not possible"
    assert relative_error(found, expected) < DOUBLE


def test_a_loss_that_is_a_module_does_not_remember_stand_ins() -> None:
    class Remembered(nn.Module):
        last: Tensor | None = None

        def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
            self.last = targets + 0
            return cross_entropy(outputs, targets)

    (model, example), loss = factored(), Remembered()
    model.at_all(example, concatenated, NO_TENSORS, loss)
    assert model.untraced is None
    assert type(loss.last) is Tensor


def test_without_another_example_there_is_no_graph() -> None:
    passes = TracedPasses(nn.Linear(1, 1), NO_TENSORS)
    example = torch.zeros(1, 1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)

    def one(batch: Batch, weights: Mapping[str, Tensor], matrices: Mapping[str, Tensor]) -> Batch:
        return batch[0][None] + 0.5, batch[1][None] + 0.5

    found, _ = passes.run(one, (one,), example, NO_TENSORS)
    assert found.item() == 0.5
    assert passes.reason == "there is no other example on which its graph could be compared"


def test_nothing_is_decided_on_an_example_without_a_finite_gradient() -> None:
    model, (inputs, targets) = factored()
    model.at_all((inputs * math.nan, targets), concatenated, NO_TENSORS)
    assert model.untraced is not None and "not finite" in model.untraced
    model.at_all((inputs, targets), concatenated, NO_TENSORS)
    assert model.untraced is None


def test_autocast_is_not_traced() -> None:
    model, example = factored()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model.at_all(example, concatenated, NO_TENSORS)
        assert model.untraced == "autocast is on"
    model.at_all(example, concatenated, NO_TENSORS)
    assert model.untraced is None


@pytest.mark.parametrize("context", [torch.no_grad, torch.enable_grad])
def test_results_may_be_changed_and_differentiated(context: Callable[[], torch.no_grad | torch.enable_grad]) -> None:
    model, example = factored()
    with context():
        vectors, values = model.at_all(example, concatenated, NO_TENSORS)
    assert model.untraced is None
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    [slope] = torch.autograd.grad((scale * vectors).sum(), scale)
    assert relative_error(slope, vectors.sum()) < DOUBLE
    before = values.clone()
    assert torch.equal(values.add_(1), before + 1)
