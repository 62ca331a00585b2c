"""Small models that a pass can or cannot be traced of, and what a pass over them gives by the loop."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from indexer.gradients.at_checkpoints import ModelAtCheckpoints
from indexer.gradients.capture import Gradients
from indexer.gradients.probe import probe
from tests.reference import in_blocks, in_float64, loop_gradients_by_name
from tests.tiny import cross_entropy

Batch = tuple[Tensor, Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]
Body = Callable[[Tensor], Tensor]
CLASS_WEIGHTS = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
NO_TENSORS: dict[str, Tensor] = {}


class Around(nn.Module):
    """A linear layer of six inputs and three outputs, with what a function makes of its input before it."""

    def __init__(self, before: Body) -> None:
        super().__init__()
        self.before, self.layer = before, nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.layer(self.before(x))
        return outputs


class Masked(nn.Module):
    """A transformer over tokens, some of which are padding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(9, 4, padding_idx=0)
        layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.1, batch_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False), nn.Linear(4, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        here = (tokens != 0)[:, :, None]
        states = self.encoder(self.embedding(tokens), src_key_padding_mask=tokens == 0)
        outputs: Tensor = self.head((states * here).sum(1) / here.sum(1))
        return outputs


class Remembering(nn.Module):
    """Keeps a table, and its last hidden state, between calls."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)
        self.tables: dict[int, Tensor] = {}
        self.last: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        width = x.shape[1]
        if width not in self.tables:
            self.tables[width] = torch.arange(width, dtype=x.dtype)
        self.last = x * self.tables[width]
        outputs: Tensor = self.layer(self.last)
        return outputs


def numbers(count: int = 4) -> Batch:
    """Positive inputs: a branch on their sign is not seen by the probe."""
    return torch.rand(count, 6, dtype=torch.float64) + 0.1, torch.arange(count) % 3


def tokens(count: int = 4) -> Batch:
    """Tokens with padding at the end."""
    found = torch.randint(1, 9, (count, 6))
    found[:, 4:] = 0
    return found, torch.arange(count) % 3


def ignoring(outputs: Tensor, targets: Tensor) -> Tensor:
    """Class weights from outside, and targets that do not count."""
    return F.cross_entropy(outputs, targets, CLASS_WEIGHTS, ignore_index=1, reduction="none")


def by_target(outputs: Tensor, targets: Tensor) -> Tensor:
    """Looks at its target's value, one example at a time; vmap over checkpoints does not mind."""
    factor = 2.0 if int(targets.sum()) == 0 else 1.0
    return factor * cross_entropy(outputs, targets)


def stacked_layers() -> nn.Module:
    """An activation in place, BatchNorm and dropout in ``eval()``."""
    return nn.Sequential(nn.Linear(6, 4), nn.ReLU(inplace=True), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 3))


def convolutions() -> nn.Module:
    """Convolution and pooling in one dimension."""
    hidden = (nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 2, 3), nn.ReLU(), nn.MaxPool1d(2), nn.Flatten())
    return nn.Sequential(*hidden, nn.Linear(4, 3))


def linear() -> nn.Module:
    """One layer."""
    return nn.Linear(6, 3)


def branch(x: Tensor) -> Tensor:
    return x * (2 if (x > 0).any() else 3)


SAFE: dict[str, tuple[Callable[[], nn.Module], Loss, Callable[[], Batch]]] = {
    "layers": (stacked_layers, cross_entropy, numbers),
    "convolutions": (convolutions, cross_entropy, numbers),
    "class weights": (stacked_layers, ignoring, numbers),
    "transformer": (Masked, cross_entropy, tokens),
    "where": (lambda: Around(lambda x: torch.where(x > 0, x, -2 * x)), cross_entropy, numbers),
    "mask": (lambda: Around(lambda x: x * (x > 0.5)), cross_entropy, numbers),
    "constant branch": (lambda: Around(lambda x: x * (2 if torch.tensor(3.0) > 0 else 3)), cross_entropy, numbers),
    "remembering": (Remembering, cross_entropy, numbers),
}
TRACING, STACKING = "it cannot be traced", "vmap over checkpoints"
READ_VALUES: dict[str, tuple[Body, str]] = {  # and what refuses them
    "branch": (branch, TRACING),
    "item": (lambda x: x * (2 if x[0, 0].item() > 0 else 3), TRACING),
    "tolist": (lambda x: x * (2 if x[:, 0].tolist()[0] > 0 else 3), TRACING),
    "numpy": (lambda x: x * (2 if x.numpy()[0, 0] > 0 else 3), STACKING),
    "equal": (lambda x: x * (2 if torch.equal(x, x.abs()) else 3), TRACING),
    "index by a mask": (lambda x: x + x[x < 0].sum(), TRACING),
    "length of what a mask leaves": (lambda x: x * (1 + len(x[x < 0])), TRACING),
    "pointer": (lambda x: x * (1 + 0 * x.data_ptr()), TRACING),
}


def concatenated(gradients: Gradients, _: Mapping[str, Tensor]) -> Tensor:
    """All blocks by name, flattened."""
    return torch.cat([gradients[name].dense().flatten(1) for name in sorted(gradients)], dim=1)


def at_two_states(
    make: Callable[[], nn.Module], loss: Loss, batch: Batch
) -> tuple[ModelAtCheckpoints, list[nn.Module]]:
    """A model at two states in float64, and the same as two modules."""
    modules = [in_float64(make()) for _ in range(2)]
    states = [
        {name: tensor.detach().clone() for name, tensor in (*module.named_parameters(), *module.named_buffers())}
        for module in modules
    ]
    return ModelAtCheckpoints(make(), states, loss, probe(make(), loss, batch), dtype=torch.float64), modules


def by_loop(model: ModelAtCheckpoints, modules: list[nn.Module], example: Batch) -> Tensor:
    """The same as `concatenated` at all checkpoints, by ``backward()``."""
    rows = []
    for module in modules:
        blocks = in_blocks(model.layout, loop_gradients_by_name(module, model.loss, *example))
        rows.append(torch.cat([blocks[name].flatten(1) for name in sorted(blocks)], dim=1))
    return torch.stack(rows)


def factored() -> tuple[ModelAtCheckpoints, Batch]:
    """A model that can be traced, and one example."""
    model, _ = at_two_states(stacked_layers, cross_entropy, numbers())
    return model, numbers(1)
