"""Gradients at several checkpoints: `at` and `at_all` give the same, and both what the loop gives."""

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from indexer.gradients.at_checkpoints import ModelAtCheckpoints
from indexer.gradients.capture import Gradients
from indexer.gradients.probe import probe
from tests.reference import in_blocks, in_float64, loop_gradients_by_name, relative_error
from tests.tiny import cross_entropy

DOUBLE = 1e-10  # float64: rounding of sums over a few hundred terms is below 1e-14
SINGLE = 1e-5  # float32: the same sums round at 1e-7 and lose a digit or two
PERFORMANCE = pytest.mark.filterwarnings("ignore:.*not yet implemented the batching rule")


class Recurrent(nn.Module):
    """A GRU, which vmap refuses, under a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.head = nn.GRU(2, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.gru(x.reshape(-1, 3, 2))[0][:, -1])
        return outputs


class Filled(nn.Module):
    """Writes into a tensor that it made itself, which vmap over weights refuses."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(6, 2), nn.Linear(6, 1)

    def forward(self, x: Tensor) -> Tensor:
        outputs = torch.zeros(len(x), 3, dtype=x.dtype)
        outputs[:, :2] = self.left(x)
        outputs[:, 2:] = self.right(x)
        return outputs


class Guarded(nn.Module):
    """Looks at its values, which vmap refuses, though it always takes the same path."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.layer(x)
        return outputs / 2 if outputs.abs().max() > 1e6 else outputs


def factored() -> nn.Module:
    """Linear layers and an in-place activation."""
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(inplace=True), nn.Linear(5, 3))


def mixed() -> nn.Module:
    """Rules and vmap, with buffers."""
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.LayerNorm(5), nn.Linear(5, 3))


def transformer() -> nn.Module:
    """Attention with an even number of heads: without gradients, eval mode takes a fused path that nothing watches."""
    encoder = nn.TransformerEncoderLayer(2, 2, 4, batch_first=True)
    return nn.Sequential(nn.Unflatten(1, (3, 2)), encoder, nn.Flatten(), nn.Linear(6, 3))


MODELS = {
    "factors": factored,
    "mixed": mixed,
    "loop": Recurrent,
    "filled": Filled,
    "guarded": Guarded,
    "transformer": transformer,
}
ALL_MODELS = pytest.mark.parametrize("name", MODELS)


def batch(count: int = 4) -> tuple[Tensor, Tensor]:
    """Random inputs and targets."""
    return torch.randn(count, 6), torch.arange(count) % 3


def at_three_states(name: str, dtype: torch.dtype) -> tuple[ModelAtCheckpoints, list[nn.Module]]:
    """A model at three random checkpoints, and the same as three modules in float64."""
    modules = [MODELS[name]() for _ in range(3)]
    for module in modules:
        for buffer in module.buffers():
            if buffer.is_floating_point():
                buffer += torch.rand_like(buffer)
    states = [
        {key: tensor.detach().clone() for key, tensor in (*module.named_parameters(), *module.named_buffers())}
        for module in modules
    ]
    layout = probe(MODELS[name](), cross_entropy, batch())
    model = ModelAtCheckpoints(MODELS[name](), states, cross_entropy, layout, dtype=dtype)
    return model, [in_float64(module) for module in modules]


def concatenated(gradients: Gradients, matrices: Mapping[str, Tensor]) -> Tensor:
    """All blocks by name, flattened; the factor in ``matrices`` makes checkpoints tell."""
    return torch.cat([gradients[name].dense().flatten(1) for name in sorted(gradients)], dim=1) * matrices["factor"]


def expected_vectors(model: ModelAtCheckpoints, modules: list[nn.Module], examples: tuple[Tensor, Tensor]) -> Tensor:
    """The same by the loop, with factors 1, 2 and 3."""
    rows = []
    for factor, module in enumerate(modules, start=1):
        blocks = in_blocks(model.layout, loop_gradients_by_name(module, cross_entropy, *examples))
        rows.append(factor * torch.cat([blocks[name].flatten(1) for name in sorted(blocks)], dim=1))
    return torch.stack(rows)


@PERFORMANCE
@ALL_MODELS
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, DOUBLE), (torch.float32, SINGLE)])
def test_both_ways_equal_the_loop_at_every_checkpoint(name: str, dtype: torch.dtype, tolerance: float) -> None:
    model, modules = at_three_states(name, dtype)
    examples, factors = batch(), torch.tensor([1.0, 2.0, 3.0], dtype=dtype)
    expected = expected_vectors(model, modules, examples)
    one_by_one = [concatenated(model.at(i, examples).kept, {"factor": factors[i]}) for i in range(len(model))]
    at_once, values = model.at_all(examples, concatenated, {"factor": factors})
    assert at_once.dtype == values.dtype == dtype
    assert relative_error(torch.stack(one_by_one), expected) < tolerance
    assert relative_error(at_once, expected) < tolerance
    losses = torch.stack([cross_entropy(module(examples[0].double()), examples[1]) for module in modules])
    assert relative_error(values, losses.detach()) < tolerance


@PERFORMANCE
@ALL_MODELS
def test_one_example_alone_gives_the_same_as_in_a_batch(name: str) -> None:
    model, _ = at_three_states(name, torch.float64)
    inputs, targets = batch()
    factors = {"factor": torch.ones(3, dtype=torch.float64)}
    together, _ = model.at_all((inputs, targets), concatenated, factors)
    alone, _ = model.at_all((inputs[2:3], targets[2:3]), concatenated, factors)
    assert relative_error(alone, together[:, 2:3]) < DOUBLE


@PERFORMANCE
@ALL_MODELS
def test_one_example_runs_as_a_graph_wherever_checkpoints_are_stacked(name: str) -> None:
    model, modules = at_three_states(name, torch.float64)
    factors = {"factor": torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)}
    for _ in range(3):
        example = batch(1)
        found, values = model.at_all(example, concatenated, factors)
        assert relative_error(found, expected_vectors(model, modules, example)) < DOUBLE
        losses = torch.stack([cross_entropy(module(example[0].double()), example[1]) for module in modules])
        assert relative_error(values, losses.detach()) < DOUBLE
    assert (model.untraced is None) == (name in ("factors", "mixed", "transformer"))


@pytest.mark.parametrize("name", ["factors", "mixed", "loop"])
def test_a_caller_without_gradients_gets_the_same(name: str) -> None:
    model, _ = at_three_states(name, torch.float64)
    examples, factors = batch(), {"factor": torch.ones(3, dtype=torch.float64)}
    expected, _ = model.at_all(examples, concatenated, factors)
    with torch.no_grad():
        at_once, _ = model.at_all(examples, concatenated, factors)
        alone = concatenated(model.at(1, examples).kept, {"factor": torch.ones(())})
    assert relative_error(at_once, expected) < DOUBLE
    assert relative_error(alone, expected[1]) < DOUBLE


@pytest.mark.parametrize("name", ["factors", "mixed"])
def test_outputs_are_those_of_the_module(name: str) -> None:
    model, modules = at_three_states(name, torch.float64)
    inputs, _ = batch()
    for i, module in enumerate(modules):
        found = model.outputs(i, inputs)
        assert relative_error(found, module(inputs.double()).detach()) < DOUBLE
        assert not found.requires_grad


def test_another_objective_than_the_loss() -> None:
    model, modules = at_three_states("factors", torch.float64)

    def score(outputs: Tensor, targets: Tensor) -> Tensor:
        return -outputs.gather(1, targets[:, None])[:, 0]

    examples = batch()
    expected = in_blocks(model.layout, loop_gradients_by_name(modules[1], score, *examples))
    captured = model.at(1, examples, score)
    for name, gradient in expected.items():
        assert relative_error(captured.kept[name].dense(), gradient) < DOUBLE
    _, values = model.at_all(examples, concatenated, {"factor": torch.ones(3, dtype=torch.float64)}, score)
    assert relative_error(values[1], captured.loss) < DOUBLE


def test_integer_inputs_and_buffers_are_not_cast() -> None:
    module = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(24, 3), nn.BatchNorm1d(3))
    state = {name: tensor.detach() for name, tensor in (*module.named_parameters(), *module.named_buffers())}
    tokens = (torch.randint(0, 9, (4, 6)), torch.arange(4) % 3)
    layout = probe(module, cross_entropy, tokens)
    model = ModelAtCheckpoints(module, [state], cross_entropy, layout, dtype=torch.float64)
    expected = in_blocks(layout, loop_gradients_by_name(module, cross_entropy, *tokens))
    found = model.at(0, tokens).kept
    for name, gradient in expected.items():
        assert relative_error(found[name].dense(), gradient) < DOUBLE
    assert len(model) == 1


def test_later_changes_of_the_given_states_do_not_reach_the_model() -> None:
    module, examples = factored(), batch()
    state = {name: tensor.detach().clone() for name, tensor in module.named_parameters()}
    layout = probe(factored(), cross_entropy, examples)
    model = ModelAtCheckpoints(module, [state], cross_entropy, layout, dtype=torch.float32)
    before = model.outputs(0, examples[0])
    state["0.weight"].zero_()
    assert torch.equal(model.outputs(0, examples[0]), before)


def test_a_query_takes_all_checkpoints_in_one_vectorised_pass() -> None:
    inputs, targets = torch.randn(4, 6), torch.arange(4) % 3
    layout = probe(factored(), cross_entropy, (inputs, targets))
    states = [{name: tensor.detach() for name, tensor in factored().named_parameters()} for _ in range(3)]
    model = ModelAtCheckpoints(factored(), states, cross_entropy, layout, dtype=torch.float32)
    passes: list[int] = []

    def counted(outputs: Tensor, y: Tensor) -> Tensor:
        passes.append(1)
        return cross_entropy(outputs, y)

    def first_layer(gradients: Gradients, _: Mapping[str, Tensor]) -> Tensor:
        return gradients["0.weight"].dense().flatten(1)

    vectors, _ = model.at_all((inputs, targets), first_layer, {}, counted)
    assert vectors.shape[:2] == (3, 4)
    assert len(passes) == 1


def test_what_is_frozen_and_the_same_everywhere_is_kept_once() -> None:
    """The base of an adapter would otherwise take its memory once a checkpoint; answers do not change."""
    module = factored()
    module.get_submodule("0").requires_grad_(False)
    frozen = {name: tensor.clone() for name, tensor in module.state_dict().items() if name.startswith("0.")}
    apart = [dict(factored().state_dict()) | frozen for _ in range(3)]
    copied = [state | {name: tensor.clone() for name, tensor in frozen.items()} for state in apart]
    batch = torch.randn(4, 6), torch.arange(4) % 3
    layout = probe(module, cross_entropy, batch)
    shared, separate = (
        ModelAtCheckpoints(module, states, cross_entropy, layout, dtype=torch.float64) for states in (apart, copied)
    )
    assert len({state["0.weight"].data_ptr() for state in shared.states}) == 1
    assert len({state["0.weight"].data_ptr() for state in separate.states}) == 3

    def vectors(gradients: Gradients, matrices: Mapping[str, Tensor]) -> Tensor:
        return torch.cat([gradient.dense().flatten(1) for gradient in gradients.values()], dim=1)

    found, expected = (model.at_all(batch, vectors, {"any": torch.zeros(3)})[0] for model in (shared, separate))
    assert relative_error(found, expected) < DOUBLE
