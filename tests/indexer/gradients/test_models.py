"""Whole models of every kind in the zoo: the engine against a float64 loop of ``backward()`` at two states."""

from collections.abc import Mapping
from functools import cache

import pytest
import torch
from torch import Tensor

from indexer.gradients.at_checkpoints import ModelAtCheckpoints
from indexer.gradients.capture import Gradients
from indexer.gradients.layout import Layout
from indexer.gradients.probe import probe
from tests.reference import in_blocks, in_float64, loop_gradients, loop_gradients_by_name, relative_error
from tests.zoo import ZOO, gpt2
from tests.zoo_batches import Batch, next_token_loss

DOUBLE = 1e-10  # float64: rounding of sums over a few hundred terms is below 1e-14
SINGLE = 1e-5  # float32: the same sums round at 1e-7; the worst block is off by 7e-7
DTYPES = {torch.float64: DOUBLE, torch.float32: SINGLE}
EXAMPLES = 5
STATES = 2

# Blocks that are not made from factors. A model that falls to a slower path must change this table.
RECURRENT = {f"layer.{name}_l0": "loop" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
OTHER_PATHS: dict[str, dict[str, str]] = {
    "vision transformer": {"token": "copies", "positions": "copies"},
    "lstm": RECURRENT,
    "gru": RECURRENT,
}
ONE_CHECKPOINT_AFTER_THE_OTHER = {"encoder decoder", "lstm", "gru"}

pytestmark = pytest.mark.filterwarnings("ignore:.*not yet implemented the batching rule")
ALL_MODELS = pytest.mark.parametrize("name", ZOO)
IN_BOTH_DTYPES = pytest.mark.parametrize(
    ("name", "dtype"),
    [
        pytest.param(
            name,
            dtype,
            id=f"{name}-{dtype}".replace("torch.", ""),
        )
        for name in ZOO
        for dtype in DTYPES
    ],
)
State = dict[str, Tensor]


@cache
def layout_of(name: str) -> Layout:
    """The layout that the probe finds, once a model: it depends on no weight."""
    return probe(ZOO[name].make(), ZOO[name].loss, ZOO[name].batch(4))


def random_state(name: str) -> State:
    """A model moved away from where it begins: scales, shifts and running statistics are random too."""
    module = ZOO[name].make()
    state = {key: tensor.detach().clone() for key, tensor in (*module.named_parameters(), *module.named_buffers())}
    for key, tensor in state.items():
        if tensor.is_floating_point():
            tensor += torch.rand_like(tensor) if "running_var" in key else 0.2 * torch.randn_like(tensor)
    return state


def at_random_states(name: str, dtype: torch.dtype) -> tuple[ModelAtCheckpoints, list[State]]:
    """A model of the zoo at its states."""
    states = [random_state(name) for _ in range(STATES)]
    model = ModelAtCheckpoints(ZOO[name].make(), states, ZOO[name].loss, layout_of(name), dtype=dtype)
    return model, states


def loop(name: str, state: State, batch: Batch) -> dict[str, Tensor]:
    """{block: [b, m, n]} by the loop."""
    module = in_float64(ZOO[name].make(), state)
    return in_blocks(layout_of(name), loop_gradients_by_name(module, ZOO[name].loss, *batch))


def concatenated(gradients: Gradients, _: Mapping[str, Tensor]) -> Tensor:
    """All blocks of every example, one after the other, by name."""
    return torch.cat([gradients[name].dense().flatten(1) for name in sorted(gradients)], dim=1)


@IN_BOTH_DTYPES
def test_every_block_equals_the_loop_both_ways(name: str, dtype: torch.dtype) -> None:
    (model, states), batch = at_random_states(name, dtype), ZOO[name].batch(EXAMPLES)
    at_once, _ = model.at_all(batch, concatenated, {})
    assert at_once.dtype == dtype
    for i, state in enumerate(states):
        expected, kept = loop(name, state, batch), model.at(i, batch).kept
        assert kept.keys() == expected.keys()
        parts = torch.split(at_once[i], [expected[block][0].numel() for block in sorted(expected)], dim=1)
        for block, part in zip(sorted(expected), parts, strict=True):
            assert relative_error(kept[block].dense(), expected[block]) < DTYPES[dtype], block
            assert relative_error(part, expected[block].flatten(1)) < DTYPES[dtype], block


@IN_BOTH_DTYPES
def test_norms_and_products_equal_those_of_whole_gradients(name: str, dtype: torch.dtype) -> None:
    (model, states), specimen = at_random_states(name, dtype), ZOO[name]
    here, there = specimen.batch(EXAMPLES), specimen.batch(3)
    kept, asked = model.at(1, here).kept, model.at(1, there).kept
    module = in_float64(specimen.make(), states[1])
    rows, columns = (loop_gradients(module, specimen.loss, *batch) for batch in (here, there))
    norms = torch.stack([gradient.square_norm() for gradient in kept.values()]).sum(0)
    products = torch.stack([gradient.dot(asked[block]) for block, gradient in kept.items()]).sum(0)
    assert relative_error(norms, rows.square().sum(1)) < DTYPES[dtype]
    assert relative_error(products, rows @ columns.T) < DTYPES[dtype]


@ALL_MODELS
def test_every_parameter_takes_the_path_that_is_expected(name: str) -> None:
    layout = layout_of(name)
    others = {block.name: block.path for block in layout.blocks if block.path != "factors"}
    assert others == OTHER_PATHS.get(name, {})
    named = dict(ZOO[name].make().named_parameters())
    assert sorted(parameter for block in layout.blocks for parameter in block.parameters) == sorted(named)
    assert layout.size == sum(parameter.numel() for parameter in named.values())


@ALL_MODELS
def test_checkpoints_are_stacked_wherever_they_can_be(name: str) -> None:
    assert (layout_of(name).sequential is not None) == (name in ONE_CHECKPOINT_AFTER_THE_OTHER)


@pytest.mark.parametrize(
    ("name", "weight"),
    [("bert masked", "model.bert.embeddings.word_embeddings.weight"), ("gpt2", "model.transformer.wte.weight")],
)
def test_a_tied_weight_is_one_block_with_both_its_roles(name: str, weight: str) -> None:
    layout, batch = layout_of(name), ZOO[name].batch(EXAMPLES)
    assert [site.function for site in layout.sites if site.weight == weight] == ["embedding", "linear"]
    model, states = at_random_states(name, torch.float64)
    tied, right = model.at(0, batch).kept[weight], loop(name, states[0], batch)[weight].flatten(1)
    assert relative_error(tied.square_norm(), right.square().sum(1)) < DOUBLE
    assert relative_error(tied.dot(tied), right @ right.T) < DOUBLE


def test_the_roles_of_a_tied_weight_meet_in_products_of_positions() -> None:
    module = gpt2(vocabulary=31, width=16)  # three positions in each role: less work than a gradient of 31 x 16
    here, there = torch.randint(1, 31, (5, 3)), torch.randint(1, 31, (4, 3))
    weight, layout = "model.transformer.wte.weight", probe(module, next_token_loss, (here, here))
    state = {name: tensor.detach() for name, tensor in (*module.named_parameters(), *module.named_buffers())}
    model = ModelAtCheckpoints(module, [state], next_token_loss, layout, dtype=torch.float64)
    tied, asked = (model.at(0, (tokens, tokens)).kept[weight] for tokens in (here, there))
    assert tied.settled() is tied
    rows, columns = (
        loop_gradients_by_name(module, next_token_loss, tokens, tokens)[weight].flatten(1) for tokens in (here, there)
    )
    assert relative_error(tied.square_norm(), rows.square().sum(1)) < DOUBLE
    assert relative_error(tied.dot(asked), rows @ columns.T) < DOUBLE
