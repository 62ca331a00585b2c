"""Recording what Lightning's Trainer trains: rates as a hook of our own saw them, losses of each batch."""

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, StochasticWeightAveraging
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader, Dataset, IterableDataset

from indexer.checkpoints.folder import open_run
from indexer.checkpoints.weights import read_weights
from indexer.errors import MissingExtraError, RecordError
from indexer.record.lightning import RecordCheckpoints
from tests.indexer.record.training import Dies, files, network, rates_at, to_zero, train_losses, two_groups, watched

STEPS = 9  # 3 an epoch: 5 batches, two of them a step and one for the last
LOSS = 1e-6  # relative: a loss that was divided and multiplied again in float32

pytestmark = [
    pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
    pytest.mark.filterwarnings(r"ignore:`isinstance\(treespec, LeafSpec\)` is deprecated:FutureWarning"),
]


class Module(LightningModule):
    """Two groups, linear decay to zero, and a loss that is noted as it was."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()
        self.losses: list[float] = []
        self.rates: list[list[float]] = []

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor | None:
        loss: Tensor = self.net(batch).square().mean()
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = two_groups(self.net)
        self.rates = watched(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": to_zero(optimizer, STEPS), "interval": "step"}}


class Rows(Dataset[Tensor]):
    def __init__(self, rows: list[Tensor]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> Tensor:
        return self.rows[row]


class DiesAfter(Callback):
    def __init__(self, batch: int) -> None:
        self.batch = batch

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.fit_loop.total_batch_idx + 1 == self.batch:
            raise Dies


def loader() -> DataLoader[Tensor]:
    rows = [torch.randn(3, generator=torch.Generator().manual_seed(row)) for row in range(10)]
    return DataLoader(Rows(rows), batch_size=2)


def fit(module: LightningModule, folder: Path, *callbacks: Callback, data: Any = None, **settings: Any) -> Trainer:
    """Train for three epochs."""
    resume = settings.pop("ckpt_path", None)
    trainer = Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        callbacks=list(callbacks),
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        **{"max_epochs": 3, "accumulate_grad_batches": 2, **settings},
    )
    trainer.fit(module, loader() if data is None else data, ckpt_path=resume)
    return trainer


def test_rates_and_losses_are_those_of_the_steps(tmp_path: Path) -> None:
    module = Module()
    fit(module, tmp_path, RecordCheckpoints(tmp_path / "run", network="net"))
    run, rates = open_run(tmp_path / "run"), module.rates
    assert len(rates) == STEPS and rates == [pytest.approx(rates_at(step, STEPS)) for step in range(1, STEPS + 1)]
    assert run.history.steps.tolist() == list(range(1, STEPS + 1))
    assert run.history.learning_rates.tolist() == rates
    assert [(c.step, c.epoch) for c in run.checkpoints] == [(3, 1), (6, 2), (9, 3)]
    assert [list(c.learning_rates) for c in run.checkpoints] == [rates[2], rates[5], rates[8]]
    assert [group.names for group in run.groups] == [("2.weight", "2.bias"), ("0.weight", "0.bias")]
    by_step = [np.mean(part) for k in (0, 5, 10) for part in np.split(module.losses[k : k + 5], [2, 4])]
    np.testing.assert_allclose(run.history.losses, by_step, rtol=LOSS)
    np.testing.assert_allclose(train_losses(run), np.reshape(by_step, (3, 3)).mean(1), rtol=LOSS)
    for name, tensor in read_weights(run.checkpoints[-1].path).items():
        assert tensor.equal(module.net.state_dict()[name])


def test_the_whole_module_without_a_network(tmp_path: Path) -> None:
    fit(Module(), tmp_path, RecordCheckpoints(tmp_path / "run", every=4, optimizer_state=True))
    run = open_run(tmp_path / "run")
    assert [c.step for c in run.checkpoints] == [4, 8, 9]
    assert run.groups[0].names == ("net.2.weight", "net.2.bias")
    assert list(read_weights(run.checkpoints[0].path)) == ["net.0.bias", "net.0.weight", "net.2.bias", "net.2.weight"]
    assert run.checkpoints[0].optimizer_state == tmp_path / "run" / "step-000004.optimizer.pt"


class Notes(Callback):
    """The weights after each step."""

    def __init__(self) -> None:
        self.own: dict[int, dict[str, Tensor]] = {}

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.global_step not in self.own:
            self.own[trainer.global_step] = {name: own.clone() for name, own in pl_module.state_dict().items()}


class Constant(Module):
    """Without a schedule: averaging has its own."""

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.net.parameters(), lr=0.1)


class Normalized(Constant):
    """With batch normalization, for which averaging adds an epoch without gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.net.insert(1, torch.nn.BatchNorm1d(4))


@pytest.mark.filterwarnings("ignore:Swapping scheduler")
@pytest.mark.parametrize(("module", "every"), [(Constant, None), (Constant, 4), (Normalized, 4)])
@pytest.mark.parametrize("averages_first", [True, False])
def test_the_last_checkpoint_is_that_of_its_step_though_weights_are_averaged_at_the_end(
    tmp_path: Path, module: type[Module], every: int | None, averages_first: bool
) -> None:
    made, notes = module(), Notes()
    callbacks = [
        StochasticWeightAveraging(swa_lrs=0.05, swa_epoch_start=1),
        RecordCheckpoints(tmp_path / "run", every=every),
    ]
    fit(made, tmp_path, *(callbacks if averages_first else callbacks[::-1]), notes, accumulate_grad_batches=1)
    run = open_run(tmp_path / "run")
    last = run.checkpoints[-1]
    assert [c.step for c in run.checkpoints] == ([5, 10, 15] if every is None else [4, 8, 12, 15])
    found = read_weights(last.path)
    assert all(tensor.equal(notes.own[15][name]) for name, tensor in found.items())
    assert not made.state_dict()["net.0.weight"].equal(found["net.0.weight"])  # averaged


def test_a_callback_may_be_attached_to_a_training_that_goes_on(tmp_path: Path) -> None:
    """It records from there on."""
    fit(Module(), tmp_path, ModelCheckpoint(tmp_path / "own", filename="{step}"), max_epochs=1)
    module, own = Module(), ModelCheckpoint(tmp_path / "own", filename="{step}")
    fit(module, tmp_path, RecordCheckpoints(tmp_path / "run"), own, ckpt_path=tmp_path / "own" / "step=3.ckpt")
    run = open_run(tmp_path / "run")
    assert [(c.step, c.epoch) for c in run.checkpoints] == [(6, 2), (9, 3)]
    assert run.history.steps.tolist() == [4, 5, 6, 7, 8, 9]
    assert run.history.learning_rates.tolist() == module.rates


@pytest.mark.parametrize("every", [2, 3, 5])
def test_a_resumed_training_has_the_recording_of_a_whole_one(tmp_path: Path, every: int) -> None:
    """Resumed at the end of the first epoch, step 3: between two checkpoints, at one, before the first."""

    def own() -> ModelCheckpoint:
        return ModelCheckpoint(tmp_path / "own", filename="{step}", save_top_k=-1)

    fit(Module(), tmp_path, RecordCheckpoints(tmp_path / "whole", every=every))
    with pytest.raises(Dies):
        fit(Module(), tmp_path, RecordCheckpoints(tmp_path / "parts", every=every), own(), DiesAfter(8))
    kept = tmp_path / "own" / "step=3.ckpt"
    fit(Module(), tmp_path, RecordCheckpoints(tmp_path / "parts", every=every), own(), ckpt_path=kept)
    assert files(tmp_path / "parts") == files(tmp_path / "whole")


def test_a_training_that_dies_is_not_recorded_further(tmp_path: Path) -> None:
    callback = RecordCheckpoints(tmp_path / "run", every=2)
    module = Module()
    with pytest.raises(Dies):
        fit(module, tmp_path, callback, DiesAfter(6))
    before = files(tmp_path / "run")
    assert [c.step for c in open_run(tmp_path / "run").checkpoints] == [2]
    with pytest.raises(RecordError, match=r"has a recording already, which goes to step 2\. .*, step=2\)"):
        fit(Module(), tmp_path, callback)
    assert files(tmp_path / "run") == before


def test_a_batch_without_a_loss_is_no_loss(tmp_path: Path) -> None:
    class Some(Module):
        def training_step(self, batch: Tensor, batch_idx: int) -> Tensor | None:
            loss = super().training_step(batch, batch_idx)
            return None if batch_idx == 1 else loss

    with pytest.warns(UserWarning, match="`training_step` returned `None`"):
        fit(module := Some(), tmp_path, RecordCheckpoints(tmp_path / "run"), max_epochs=1)
    expected = np.array([module.losses[0], np.mean(module.losses[2:4]), module.losses[4]])
    np.testing.assert_allclose(open_run(tmp_path / "run").history.losses, expected, rtol=LOSS)


def test_steps_that_are_made_by_hand(tmp_path: Path) -> None:
    """Then what the step returns is taken for the loss, a tensor or a dictionary with one."""

    class ByHand(Module):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch: Tensor, batch_idx: int) -> Any:
            loss = super().training_step(batch, batch_idx)
            assert loss is not None
            self.manual_backward(loss)
            optimizer, scheduler = self.optimizers(), self.lr_schedulers()
            assert isinstance(optimizer, LightningOptimizer) and isinstance(scheduler, LRScheduler)
            optimizer.step()
            scheduler.step()
            return {"loss": loss} if batch_idx % 2 else loss

    module = ByHand()
    fit(module, tmp_path, RecordCheckpoints(tmp_path / "run"), accumulate_grad_batches=1, max_steps=STEPS)
    run = open_run(tmp_path / "run")
    assert [(c.step, c.epoch) for c in run.checkpoints] == [(5, 1), (9, 1.8)]
    assert run.history.learning_rates.tolist() == module.rates
    assert run.history.losses.tolist() == module.losses


def test_several_optimizers_are_refused(tmp_path: Path) -> None:
    class Two(Module):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False

        def configure_optimizers(self) -> Any:
            return [torch.optim.SGD(self.net[k].parameters(), lr=0.1) for k in (0, 2)]

    with pytest.raises(
        RecordError, match=r"the module has 2 optimizers; expected one: with several, .* indexer\.Check"
    ):
        fit(Two(), tmp_path, RecordCheckpoints(tmp_path / "run"), accumulate_grad_batches=1)


def test_a_network_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"network = 'body': expected a module of Module; it has 'net'"):
        fit(Module(), tmp_path, RecordCheckpoints(tmp_path / "run", network="body"))


def test_a_stream_has_no_epochs(tmp_path: Path) -> None:
    class Stream(IterableDataset[Tensor]):
        def __iter__(self) -> Any:
            return iter(torch.randn(10, 3, generator=torch.Generator().manual_seed(0)))

    with pytest.raises(RecordError, match=r"data has no length, .*RecordCheckpoints\('.*', every=1000\)"):
        fit(Module(), tmp_path, RecordCheckpoints(tmp_path / "run"), data=DataLoader(Stream(), 2))
    fit(Module(), tmp_path, RecordCheckpoints(tmp_path / "run", every=5), data=DataLoader(Stream(), 2))
    assert [(c.step, c.epoch) for c in open_run(tmp_path / "run").checkpoints] == [(5, None), (9, None)]


def test_only_the_first_process_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "is_global_zero", False)
    fit(Module(), tmp_path, RecordCheckpoints(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_without_lightning_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightning.pytorch", None)
    monkeypatch.delitem(sys.modules, "indexer.record.lightning")
    with pytest.raises(MissingExtraError, match=r"needs lightning: pip install 'proponent\[lightning\]'"):
        importlib.import_module("indexer.record.lightning")
