"""What the probe lets pass, and what it refuses with which words."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from indexer.errors import ProbeError
from indexer.gradients.at_checkpoints import ModelAtCheckpoints, Placement
from indexer.gradients.general import by_loop
from indexer.gradients.probe import probe, runs_alike
from indexer.task import Loss
from tests.tiny import cross_entropy, tiny_model


class Wrapped(nn.Module):
    """A linear layer inside something questionable."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)
        self.way = way

    def forward(self, x: Tensor) -> Tensor:
        if self.way == "dropout":
            x = F.dropout(x, 0.5)
        if self.way == "centred":
            x = x - x.mean(0)
        outputs: Tensor = self.layer(x.flip(0)).flip(0) if self.way == "flipped" else self.layer(x)
        return outputs


def examples(count: int = 4) -> tuple[Tensor, Tensor]:
    """Random inputs and targets."""
    return torch.randn(count, 6), torch.arange(count) % 3


def batch_mean(outputs: Tensor, targets: Tensor) -> Tensor:
    """One number an example, all of them the mean of the batch."""
    return cross_entropy(outputs, targets).mean().expand(len(targets))


def reduced(outputs: Tensor, targets: Tensor) -> Tensor:
    """The mean of the batch."""
    return F.cross_entropy(outputs, targets)


def by_position(outputs: Tensor, targets: Tensor) -> Tensor:
    """One loss a class and example."""
    return outputs * targets[:, None]


def not_a_number(outputs: Tensor, targets: Tensor) -> Tensor:
    """NaN for one example."""
    losses = cross_entropy(outputs, targets)
    return torch.where(targets == 1, losses * float("nan"), losses)


def test_a_sound_model_gets_its_layout() -> None:
    layout = probe(tiny_model(), cross_entropy, (torch.rand(4, 1, 28, 28), torch.arange(4)))
    assert [(block.name, block.shape, block.path) for block in layout.blocks] == [
        ("1.weight", (4, 10), "factors"),
        ("5.weight", (10, 37), "factors"),
    ]


def test_dropout_as_a_module_is_off_and_passes() -> None:
    layout = probe(nn.Sequential(nn.Linear(6, 5), nn.Dropout(0.5), nn.Linear(5, 3)), cross_entropy, examples())
    assert len(layout.on("factors")) == 2


@pytest.mark.parametrize(
    ("way", "text"),
    [
        (
            "dropout",
            r"another output for the same input in eval\(\) mode; something in it is still random: use nn.Drop",
        ),
        ("centred", "output for an example depends on the rest of the batch; per-example influence is not defined"),
    ],
)
def test_a_model_whose_gradients_would_be_wrong_is_refused(way: str, text: str) -> None:
    with pytest.raises(ProbeError, match=text):
        probe(Wrapped(way), cross_entropy, examples())


def test_a_batch_that_is_turned_round_on_the_way_is_answered_rightly_by_vmap() -> None:
    blocks = probe(Wrapped("flipped"), cross_entropy, examples()).blocks
    assert {(block.path, block.note) for block in blocks} == {
        ("vmap", "the examples of the batch are not apart in its linear input")
    }


def test_batch_statistics_are_refused_and_the_layer_named() -> None:
    module = nn.Sequential(
        nn.Unflatten(1, (1, 2, 3)), nn.BatchNorm2d(1, track_running_stats=False), nn.Flatten(), nn.Linear(6, 3)
    )
    with pytest.raises(ProbeError, match="'1' normalises by the batch; build it with track_running_stats=True"):
        probe(module, cross_entropy, examples())


@pytest.mark.parametrize(
    ("loss", "text"),
    [
        (reduced, r"one number an example, shape \(4,\), found shape \(\); use reduction='none'"),
        (by_position, r"one number an example, shape \(4,\), found shape \(4, 3\); use reduction='none'"),
        (batch_mean, "the loss of an example depends on the rest of the batch; use reduction='none'"),
        (not_a_number, "the loss of a probe example is NaN or infinite; check the checkpoint and the data"),
    ],
)
def test_a_loss_that_is_not_one_number_an_example_is_refused(loss: Loss, text: str) -> None:
    with pytest.raises(ProbeError, match=text):
        probe(nn.Linear(6, 3), loss, examples())


def test_infinite_weights_are_refused() -> None:
    module = nn.Linear(6, 3)
    module.weight.data[0, 0] = float("inf")
    with pytest.raises(ProbeError, match="NaN or infinite"):
        probe(module, cross_entropy, examples())


@pytest.mark.parametrize("count", [1, 2])
def test_fewer_than_three_examples_are_refused(count: int) -> None:
    with pytest.raises(
        ProbeError, match=f"expected at least 3 training examples to probe the model with, found {count}"
    ):
        probe(nn.Linear(6, 3), cross_entropy, examples(count))


def test_three_examples_are_enough() -> None:
    assert probe(nn.Linear(6, 3), cross_entropy, examples(3)).size == 21


def test_an_unused_parameter_is_refused() -> None:
    module = nn.Linear(6, 3)
    module.register_parameter("spare", nn.Parameter(torch.ones(2)))
    with pytest.raises(ProbeError, match="does not depend on the trainable parameter 'spare'"):
        probe(module, cross_entropy, examples())


def test_a_model_without_trainable_parameters_is_refused() -> None:
    with pytest.raises(ProbeError, match="the model has no trainable parameter"):
        probe(nn.Linear(6, 3).requires_grad_(False), cross_entropy, examples())


def test_integer_inputs_stay_integers() -> None:
    module = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(24, 3))
    layout = probe(module, cross_entropy, (torch.randint(0, 9, (4, 6)), torch.arange(4) % 3))
    assert {block.name: block.path for block in layout.blocks} == {"0.weight": "factors", "2.weight": "factors"}


def test_a_dead_model_with_gradient_zero_passes() -> None:
    module = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    nn.init.constant_(module.get_parameter("0.bias"), -1e3)
    assert [block.path for block in probe(module, cross_entropy, examples()).blocks] == ["factors", "factors"]


def test_a_rule_that_is_wrong_by_a_millionth_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def off(*arguments: Any) -> dict[str, Tensor]:
        return {name: gradient * (1 + 1e-6) for name, gradient in by_loop(*arguments).items()}

    monkeypatch.setattr("indexer.gradients.probe.by_loop", off)
    with pytest.raises(ProbeError, match="differs from a plain"):
        probe(nn.Linear(6, 3), cross_entropy, examples())


class Doubling(nn.Linear):
    """Changes its input in place."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.mul_(2))


class Recomputing(nn.Linear):
    """Throws the activations of its second layer away and computes them again in the backward pass."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, inputs)
        self.rest = nn.Sequential(nn.Linear(inputs, inputs), nn.Tanh(), nn.Linear(inputs, outputs))

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = checkpoint(self.rest, torch.tanh(super().forward(x)), use_reentrant=False)
        return outputs


class Pair(nn.Linear):
    """Gives two tensors."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x), x  # type: ignore[return-value]


class Float(nn.Linear):
    """Insists on float32."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float())


@pytest.mark.parametrize(
    ("module", "text"),
    [
        (Doubling(6, 3), "the model changes its input in place; let it clone its input first"),
        (Pair(6, 3), "the model must return one tensor, found tuple; wrap it in one that does"),
        (Recomputing(6, 3), r"the model recomputes activations in its backward pass \(torch.utils.checkpoint\), where"),
        (Float(6, 3), "fails on the first training examples in float64, in which they are probed"),
    ],
    ids=["in place", "two tensors", "recomputing", "float32"],
)
def test_a_model_that_does_not_keep_its_contract_is_refused(module: nn.Module, text: str) -> None:
    with pytest.raises(ProbeError, match=text):
        probe(module, cross_entropy, examples())


class Peeking(nn.Sequential):
    """Looks at how its activations lie in memory, and may refuse or answer otherwise for that."""

    def __init__(self, way: str) -> None:
        super().__init__(nn.Conv2d(1, 4, 5, stride=4), nn.Linear(4 * 6 * 6, 10))
        self.way = way

    def forward(self, x: Tensor) -> Tensor:
        h = self[0](x)
        flat = h.view(len(x), -1) if self.way == "view" else h.flatten(1)
        outputs: Tensor = self[1](flat)
        return outputs / 2 if self.way == "strides" and not h.is_contiguous() else outputs


@pytest.mark.parametrize(("way", "alike"), [("", True), ("view", False), ("strides", False)])
def test_channels_last_is_compared_with_the_plain_order(way: str, alike: bool) -> None:
    batch = (torch.rand(4, 1, 28, 28), torch.arange(4))
    layout, module = probe(Peeking(""), cross_entropy, batch), Peeking(way)
    state = {name: tensor.detach() for name, tensor in module.named_parameters()}
    plain, faster = (
        ModelAtCheckpoints(
            module, [state], cross_entropy, layout, dtype=torch.float32, placement=Placement(channels_last=last)
        )
        for last in (False, True)
    )
    assert runs_alike(faster, plain, batch) is alike
