"""A deterministic training whose own state can be kept and restored: what recordings of it are held against."""

import copy
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from indexer import CheckpointRecorder
from indexer.checkpoints.run import Run

STEPS = 12
STEPS_PER_EPOCH = 3
RATES = (0.1, 0.03)


class Dies(Exception):
    """The power went."""


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def two_groups(net: nn.Sequential) -> SGD:
    """Momentum, so that a state that was not restored shows, and a rate for each layer."""
    groups = [{"params": net[2].parameters(), "lr": RATES[0]}, {"params": net[0].parameters(), "lr": RATES[1]}]
    return SGD(groups, momentum=0.9)


def to_zero(optimizer: Optimizer, steps: int = STEPS) -> LambdaLR:
    """Linear decay: the last step uses 1/steps of each rate, and after it the rate is zero."""
    return LambdaLR(optimizer, lambda step: 1 - step / steps)


def rates_at(step: int, steps: int = STEPS) -> list[float]:
    """The rates that a step used, from 1."""
    return [rate * (1 - (step - 1) / steps) for rate in RATES]


def watched(optimizer: Optimizer) -> list[list[float]]:
    """Return a list that grows by the rates of each step, noted by a hook of our own."""
    noted: list[list[float]] = []
    optimizer.register_step_post_hook(lambda opt, args, kwargs: noted.append([g["lr"] for g in opt.param_groups]))
    return noted


def batch_loss(net: nn.Module, number: int) -> Tensor:
    """The loss of a batch that is a function of its number."""
    generator = torch.Generator().manual_seed(number)
    outputs: Tensor = net(torch.randn(5, 3, generator=generator))
    return outputs.square().mean()


class Training:
    """Twelve steps of SGD; ``own`` keeps the training's own state after each."""

    def __init__(self) -> None:
        self.net = network()
        self.optimizer = two_groups(self.net)
        self.scheduler = to_zero(self.optimizer)
        self.rates = watched(self.optimizer)
        self.losses: list[float] = []
        self.counted: list[int] = []
        self.own: dict[int, dict[str, Any]] = {}

    def restore(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            getattr(self, name).load_state_dict(value)

    def run(
        self,
        folder: Path,
        *,
        step: int = 0,
        dies_after: int | None = None,
        flushes: Collection[int] = (),
        **settings: Any,
    ) -> None:
        """Train from a step on, and flush the recording at some."""
        settings = {"steps_per_epoch": STEPS_PER_EPOCH, **settings}
        with CheckpointRecorder(folder, self.net, self.optimizer, step=step, **settings) as recorder:
            for number in range(step + 1, STEPS + 1):
                loss = batch_loss(self.net, number)
                torch.autograd.backward(loss)
                self.optimizer.step()
                self.scheduler.step()
                self.optimizer.zero_grad()
                recorder.record(loss)
                self.losses.append(loss.item())
                self.counted.append(recorder.step)
                if number in flushes:
                    recorder.flush()
                parts = {name: getattr(self, name).state_dict() for name in ("net", "optimizer", "scheduler")}
                self.own[number] = copy.deepcopy(parts)
                if number == dies_after:
                    raise Dies


def train_losses(run: Run) -> Float[np.ndarray, " c"]:
    """The losses of the checkpoints, NaN where one has none."""
    return np.array([checkpoint.train_loss for checkpoint in run.checkpoints], dtype=np.float64)


def files(folder: Path) -> dict[str, bytes]:
    """Return every file of a folder with its bytes."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
