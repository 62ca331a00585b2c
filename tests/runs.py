"""Tiny real training runs of Hugging Face's Trainer and of Lightning, for tests of what they leave in a folder.

Each returns the learning rates, by parameter group, that a hook on the optimizer saw at every step: what the readers
must find again. 20 examples in batches of 2, two of which are accumulated to a step, are 5 steps an epoch, 10 in all.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, Dataset, TensorDataset

from indexer.checkpoints.eta import etas
from indexer.checkpoints.folder import open_run
from indexer.checkpoints.run import Run

EXACT = 1e-12  # relative: rates that differ by the order of a few products in float64
STEPS, STEPS_AN_EPOCH, EPOCHS = 10, 5, 2
LIGHTNING_WARNS = [
    pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:`isinstance\\(treespec, LeafSpec\\)` is deprecated"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
    pytest.mark.filterwarnings("ignore:You called `self.log"),
]
Rates = tuple[float, ...]
Groups = list[dict[str, Any]]
Scheduler = Callable[[torch.optim.Optimizer], Any]


def network() -> nn.Sequential:
    """[b, 3] -> [b, 2]; every parameter has a shape of its own."""
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def examples() -> TensorDataset:
    """20 points in two classes."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(20, 3, generator=generator)
    return TensorDataset(inputs, (inputs.sum(dim=1) > 0).long())


def two_groups(model: nn.Sequential) -> Groups:
    """The first layer at five times the rate of the second."""
    return [{"params": list(model[0].parameters()), "lr": 0.1}, {"params": list(model[2].parameters()), "lr": 0.02}]


def one_group(model: nn.Sequential) -> Groups:
    """All parameters at one rate."""
    return [{"params": list(model.parameters()), "lr": 0.1}]


def to_zero(optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
    """Linear decay to zero over the run."""
    return lr_scheduler.LinearLR(optimizer, 1.0, 0.0, STEPS)


def halving(optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
    """Half the rate at every step of the scheduler."""
    return lr_scheduler.StepLR(optimizer, 1, 0.5)


def watched(optimizer: torch.optim.Optimizer) -> list[Rates]:
    """Return a list that will have the rates of every step."""
    seen: list[Rates] = []

    def note(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        seen.append(tuple(float(group["lr"]) for group in optimizer.param_groups))

    optimizer.register_step_post_hook(note)
    return seen


def assert_as_seen(run: Run, seen: list[Rates]) -> None:
    """The rates of the checkpoints, of all steps up to the last of them, and of the intervals are what the hook saw."""
    rates = np.array(seen)
    steps = [checkpoint.step or 0 for checkpoint in run.checkpoints]
    assert steps == sorted(steps) and steps[0] > 0 and run.steps_per_epoch == STEPS_AN_EPOCH
    for checkpoint, step in zip(run.checkpoints, steps, strict=True):
        assert checkpoint.learning_rates == pytest.approx(seen[step - 1], rel=EXACT)
    np.testing.assert_allclose(run.history.rates(range(1, steps[-1] + 1)), rates[: steps[-1]], rtol=EXACT)
    sums = [rates[a:b].sum(axis=0) / STEPS_AN_EPOCH for a, b in zip([0, *steps], steps, strict=False)]
    np.testing.assert_allclose(etas(run, "interval"), sums, rtol=EXACT)


class _Rows(Dataset[dict[str, Tensor]]):
    def __init__(self) -> None:
        self.examples = examples()

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, row: int) -> dict[str, Tensor]:
        inputs, target = self.examples[row]
        return {"input": inputs, "labels": target}


def trainer_run(
    folder: Path,
    groups: Callable[[nn.Sequential], Groups] = two_groups,
    schedule: Scheduler | None = None,
    resume: bool = False,
    **more: Any,
) -> list[Rates]:
    """Train with Hugging Face's Trainer and AdamW, by default with Trainer's own linear decay to zero.

    resume: from the last checkpoint that lies in the folder. more: TrainingArguments; a checkpoint every 2 steps and a
    log every 500 are the defaults.
    """
    from transformers import Trainer, TrainingArguments  # takes seconds, which tests of Lightning need not wait for

    torch.manual_seed(0)
    model = network()
    optimizer = torch.optim.AdamW(groups(model))
    seen = watched(optimizer)

    class _Trainer(Trainer):
        def compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], *args: Any, **kwargs: Any) -> Any:
            return F.cross_entropy(model(inputs["input"]), inputs["labels"])

        def prediction_step(self, model: nn.Module, inputs: dict[str, Tensor], *args: Any, **kwargs: Any) -> Any:
            return self.compute_loss(model, inputs).detach(), None, None

    arguments = {
        "num_train_epochs": EPOCHS, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "save_steps": 2,
        "remove_unused_columns": False, "report_to": [], "use_cpu": True, "disable_tqdm": True,
        "logging_strategy": "steps", **more,
    }  # fmt: skip
    _Trainer(
        model,
        TrainingArguments(str(folder), **arguments),
        train_dataset=_Rows(),
        eval_dataset=_Rows(),
        optimizers=(optimizer, None if schedule is None else schedule(optimizer)),
    ).train(resume_from_checkpoint=resume)
    return seen


def lightning_run(
    folder: Path,
    groups: Callable[[nn.Sequential], Groups] = two_groups,
    schedule: Scheduler | None = to_zero,
    interval: str = "step",
    metrics: int | None = 1,
    by_hand: int = 0,
    **more: Any,
) -> list[Rates]:
    """Train with Lightning and SGD; more: arguments of ModelCheckpoint, by default one every 3 steps.

    metrics: steps between the rows of metrics.csv, with LearningRateMonitor's columns; None: no file. by_hand: steps of
    a warm-up that the training sets after each step, whatever the scheduler does.
    """
    import lightning  # as above
    from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
    from lightning.pytorch.loggers import CSVLogger

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.manual_seed(0)
    seen: list[list[Rates]] = []

    class _Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = network()

        def training_step(self, batch: tuple[Tensor, Tensor], number: int) -> Tensor:
            loss = F.cross_entropy(self.model(batch[0]), batch[1])
            self.log("train_loss", loss)
            return loss

        def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
            norms = [parameter.grad.norm() for parameter in self.parameters() if parameter.grad is not None]
            self.log("grad_norm", torch.stack(norms).norm())

        def optimizer_step(self, epoch: int, batch: int, optimizer: Any, closure: Any = None) -> None:
            optimizer.step(closure=closure)
            for group in optimizer.param_groups if self.trainer.global_step < by_hand else ():
                group["lr"] = group["full"] * (self.trainer.global_step + 1) / by_hand

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD(groups(self.model), momentum=0.9)
            seen.append(watched(optimizer))
            for group in optimizer.param_groups if by_hand else ():
                group["full"] = group["lr"]
                group["lr"] = group["lr"] / by_hand
            if schedule is None:
                return optimizer
            return {
                "optimizer": optimizer,
                "lr_scheduler": {"scheduler": schedule(optimizer), "interval": interval, "monitor": "train_loss"},
            }

    keep: dict[str, Any] = {"every_n_train_steps": 3, "save_top_k": -1, **more}
    trainer = lightning.Trainer(
        default_root_dir=folder,
        max_epochs=EPOCHS,
        accelerator="cpu",
        accumulate_grad_batches=2,
        logger=False if metrics is None else CSVLogger(folder, name="lightning_logs"),
        log_every_n_steps=metrics or 50,
        callbacks=[ModelCheckpoint(**keep), *([] if metrics is None else [LearningRateMonitor()])],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(_Module(), DataLoader(examples(), batch_size=2))
    return seen[0]


def saved(folder: Path, **documents: Any) -> Run:
    """Write each document as ``name.pt``, and return the run that the folder is then."""
    for name, document in documents.items():
        torch.save(document, folder / f"{name}.pt")
    return open_run(folder)


def names(run: Run) -> list[str]:
    """The checkpoints' files, without their endings."""
    return [checkpoint.path.stem for checkpoint in run.checkpoints]
