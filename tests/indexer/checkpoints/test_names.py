"""Names in a checkpoint and names of the task's model: one prefix for all, tied names; never a guess."""

import pytest
import torch
from torch import nn

from indexer.checkpoints.names import own_names, tied_names
from indexer.errors import CheckpointError


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


class Holder(nn.Module):
    """A network under an attribute, beside something else: a LightningModule, or a task's wrapper."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.net(inputs)
        return outputs


OWN = list(network().state_dict())


def named(*names: str) -> dict[str, torch.Tensor]:
    """Tensors by these names, each of the shape that the network has at the end of its name."""
    shapes = {name: tensor.shape for name, tensor in network().state_dict().items()}
    return {name: torch.zeros(shapes.get(".".join(name.split(".")[-2:]), ())) for name in names}


def test_own_names_stay() -> None:
    assert own_names(named(*OWN), network(), "x").own == dict(zip(OWN, OWN, strict=True))


@pytest.mark.parametrize("prefix", ["net.", "module.", "_orig_mod.", "net._orig_mod.", "a.b.c."])
def test_a_prefix_of_the_file_is_taken_off(prefix: str) -> None:
    names = [f"{prefix}{name}" for name in OWN]
    assert own_names(named(*names), network(), "x").own == dict(zip(names, OWN, strict=True))


def test_what_stands_beside_the_prefix_is_another_part() -> None:
    names = ["criterion.weight", *(f"net.{name}" for name in OWN)]
    assert "criterion.weight" not in own_names(named(*names), network(), "x").own


def test_what_stands_under_the_prefix_is_kept_to_be_refused() -> None:
    names = ["net.9.weight", *(f"net.{name}" for name in OWN)]
    assert own_names(named(*names), network(), "x").own["net.9.weight"] == "9.weight"


def test_a_wrapper_of_the_task_puts_a_prefix_on() -> None:
    assert own_names(named(*OWN), Holder(network()), "x").own == {name: f"net.{name}" for name in OWN}


def test_a_model_and_its_moving_average_are_not_chosen_between() -> None:
    names = [f"{prefix}{name}" for prefix in ("model.", "ema.") for name in OWN]
    expected = r"x has every weight of the task's model twice, under 'model\.' and 'ema\.'; save the one that is meant"
    with pytest.raises(CheckpointError, match=expected):
        own_names(named(*names), network(), "x")


def test_between_several_prefixes_the_shapes_decide() -> None:
    state = {
        "a.weight": torch.zeros(2, 3),
        "a.bias": torch.zeros(2),
        "b.weight": torch.zeros(9, 3),
        "b.bias": torch.zeros(9),
    }
    assert own_names(state, nn.Linear(3, 2), "x").own == {"a.weight": "weight", "a.bias": "bias"}
    assert own_names(state, nn.Linear(7, 7), "x").own == {name: name for name in state}  # neither


def test_a_changed_model_is_found_under_its_prefix_to_be_refused_by_shape() -> None:
    assert (
        own_names({"a.weight": torch.zeros(5, 3), "a.bias": torch.zeros(5)}, nn.Linear(3, 2), "x").own["a.bias"]
        == "bias"
    )


def test_names_of_another_model_stay_as_they_are() -> None:
    assert own_names(named("encoder.weight", "0.weight"), network(), "x").own == {
        "encoder.weight": "encoder.weight",
        "0.weight": "0.weight",
    }


def tied() -> nn.Module:
    module = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 5, bias=False))
    module[1].weight = module[0].weight
    return module


def test_tied_names_go_together() -> None:
    assert tied_names(tied()) == [["0.weight", "1.weight"]]
    assert tied_names(nn.BatchNorm1d(2))[-1] == ["num_batches_tracked"]


@pytest.mark.parametrize("kept", ["0.weight", "1.weight"])
def test_either_name_of_a_tied_weight_will_do(kept: str) -> None:
    assert own_names(named(f"net.{kept}"), tied(), "x").own == {f"net.{kept}": kept}


def test_a_part_that_is_alike_is_told() -> None:
    """The trained weights may be those that do not fit: a network under parametrizations beside its moving average."""
    trained = [name.replace("0.weight", "0.parametrizations.weight.original0") for name in OWN]
    state = named(*(f"net.{name}" for name in trained), *(f"ema.{name}" for name in OWN))
    found = own_names(state, network(), "x")
    assert set(found.own) == {f"ema.{name}" for name in OWN}
    assert found.caveat == "the weights are those under 'ema.'; 'net.' in the same files is alike"


def test_a_part_that_is_not_alike_is_no_matter() -> None:
    assert own_names(named("criterion.0.bias", *(f"net.{name}" for name in OWN)), network(), "x").caveat is None
