"""Models whose loss is flat on the examples that are probed: other examples must still get the loop's gradients."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from indexer.gradients.at_checkpoints import ModelAtCheckpoints
from indexer.gradients.probe import probe
from indexer.losses import token_cross_entropy
from indexer.task import Loss
from tests.reference import in_blocks, loop_gradients_by_name, relative_error
from tests.tiny import cross_entropy

DOUBLE = 1e-10  # float64: rounding of sums over a few hundred terms is below 1e-14
Batch = tuple[Tensor, Tensor]


class Encoder(nn.Module):
    """[b, 5, 8] -> [b, 3] from the first token, or [b, 5, 3] from all."""

    def __init__(self, pooled: bool) -> None:
        super().__init__()
        self.layer, self.head = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), nn.Linear(8, 3)
        self.pooled = pooled

    def forward(self, x: Tensor) -> Tensor:
        h = self.layer(x)
        outputs: Tensor = self.head(h[:, 0] if self.pooled else h)
        return outputs


class Scaled(nn.Module):
    """A scale of as many channels as there are tokens, and as there are probed examples."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.head = nn.Parameter(torch.rand(4) + 0.5), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.head((torch.tanh(x) * self.scale).mean(1))
        return outputs


class ZeroHead(nn.Module):
    """A head that starts at zero: no output says anything of what is before it."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Encoder(pooled=False)
        nn.init.zeros_(self.body.head.weight)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.body(x).mean(1)
        return outputs


def weighted(outputs: Tensor, targets: Tensor) -> Tensor:
    """Examples of target 2 do not count."""
    return cross_entropy(outputs, targets) * (targets != 2)


def beyond(outputs: Tensor, targets: Tensor) -> Tensor:
    """A hinge that is passed wherever the target is 2."""
    margin = outputs.gather(1, targets[:, None])[:, 0] - outputs.mean(1)
    return torch.relu(1 - margin - 1000.0 * (targets == 2))


def tokens(count: int) -> Tensor:
    return torch.randn(count, 5, 8)


def flat(count: int) -> Tensor:
    return torch.full((count,), 2)


CASES: dict[str, tuple[Callable[[], nn.Module], Loss, Batch, Batch]] = {
    "weights of zero": (lambda: Encoder(True), weighted, (tokens(4), flat(4)), (tokens(12), torch.arange(12) % 2)),
    "one that counts": (
        *(lambda: Encoder(True), weighted),
        (tokens(4), torch.tensor([2, 0, 2, 2])),
        (tokens(12), torch.arange(12) % 2),
    ),
    "beyond the margin": (lambda: Encoder(True), beyond, (tokens(4), flat(4)), (tokens(12), torch.arange(12) % 2)),
    "tokens ignored": (
        *(lambda: Encoder(False), token_cross_entropy),
        (tokens(4), torch.full((4, 5), -100)),
        (tokens(12), torch.randint(0, 3, (12, 5))),
    ),
    "a scale": (
        *(Scaled, weighted),
        (torch.randn(4, 4, 4), flat(4)),
        (torch.randn(12, 4, 4), torch.arange(12) % 2),
    ),
    "a head of zeros": (ZeroHead, cross_entropy, (tokens(4), flat(4)), (tokens(12), torch.arange(12) % 3)),
}


@pytest.mark.filterwarnings("ignore:.*not yet implemented the batching rule")
@pytest.mark.parametrize("case", CASES)
def test_what_the_probe_could_not_see_is_right_all_the_same(case: str) -> None:
    make, loss, probed, batch = CASES[case]
    module, trained = make(), make()
    for parameter in trained.parameters():
        nn.init.normal_(parameter, 0.0, 0.5)
    layout = probe(module, loss, probed)
    state = {name: tensor.detach() for name, tensor in (*trained.named_parameters(), *trained.named_buffers())}
    model = ModelAtCheckpoints(trained, [state], loss, layout, dtype=torch.float64)
    expected = in_blocks(layout, loop_gradients_by_name(trained, loss, *batch))
    found = model.at(0, batch).kept
    for name, right in expected.items():
        assert relative_error(found[name].dense(), right) < DOUBLE
