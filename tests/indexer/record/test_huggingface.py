"""Recording what Hugging Face's Trainer trains: rates as a hook of our own saw them, losses as it logs them."""

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, IterableDataset
from transformers import Trainer, TrainerCallback, TrainingArguments

from indexer.checkpoints.folder import open_run
from indexer.checkpoints.weights import read_weights
from indexer.errors import MissingExtraError, RecordError
from indexer.record.huggingface import RecordCheckpoints
from tests.indexer.record.training import Dies, files, network, rates_at, to_zero, train_losses, two_groups, watched

STEPS = 8  # 4 an epoch: 7 batches of 2, two of them a step and one for the last
LOGGED = 1e-6  # relative: the Trainer adds losses up in float32


class Model(nn.Module):
    """What the Trainer trains: a dictionary with the loss in it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()
        self.losses: list[float] = []

    def forward(self, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        outputs = self.net(inputs)
        loss = (outputs - labels).square().mean()
        self.losses.append(loss.item())
        return {"loss": loss, "logits": outputs}


class Rows(Dataset[dict[str, Tensor]]):
    def __len__(self) -> int:
        return 14

    def __getitem__(self, row: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(row)
        return {"inputs": torch.randn(3, generator=generator), "labels": torch.randn(2, generator=generator)}


class Stream(IterableDataset[dict[str, Tensor]]):
    def __iter__(self) -> Any:
        return (Rows()[row] for row in range(14))


class DiesAfter(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            raise Dies


def trainer(
    folder: Path, *callbacks: TrainerCallback, data: Any = None, kind: type[Trainer] = Trainer, **settings: Any
) -> tuple[Trainer, Model, list[list[float]]]:
    """Return a trainer with linear decay to zero, two groups and accumulation, and the rates that its steps use."""
    model = Model()
    optimizer = two_groups(model.net)
    arguments = {
        **{"output_dir": str(folder), "use_cpu": True, "report_to": [], "disable_tqdm": True, "max_steps": STEPS},
        **{"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "logging_steps": 1},
        **{"save_strategy": "no", "dataloader_pin_memory": False, **settings},
    }
    made = kind(
        model,
        TrainingArguments(**arguments),
        eval_dataset=Rows(),
        train_dataset=data or Rows(),
        optimizers=(optimizer, to_zero(optimizer, STEPS)),
        callbacks=list(callbacks),
    )
    return made, model, watched(optimizer)


def test_rates_and_losses_are_those_of_the_steps(tmp_path: Path) -> None:
    made, model, rates = trainer(tmp_path / "own", RecordCheckpoints(tmp_path / "run"))
    made.train()
    run = open_run(tmp_path / "run")
    assert len(rates) == STEPS and rates == [pytest.approx(rates_at(step, STEPS)) for step in range(1, STEPS + 1)]
    assert run.history.steps.tolist() == list(range(1, STEPS + 1))
    assert run.history.learning_rates.tolist() == rates
    assert [(c.step, c.epoch, list(c.learning_rates)) for c in run.checkpoints] == [(4, 1, rates[3]), (8, 2, rates[7])]
    assert [group.names for group in run.groups] == [("net.2.weight", "net.2.bias"), ("net.0.weight", "net.0.bias")]
    assert run.steps_per_epoch == 4
    batches = model.losses
    by_step = [np.mean(part) for k in (0, 7) for part in np.split(batches[k : k + 7], [2, 4, 6])]
    np.testing.assert_allclose(run.history.losses, by_step, rtol=LOGGED)
    np.testing.assert_allclose(train_losses(run), np.reshape(by_step, (2, 4)).mean(1), rtol=LOGGED)
    assert (run.history.gradient_norms <= 1 + LOGGED).all()  # clipped, as the optimizer got them
    for name, tensor in read_weights(run.checkpoints[-1].path).items():
        assert tensor.equal(model.state_dict()[name])


@pytest.mark.parametrize(("every", "steps"), [(None, [4, 8]), (3, [3, 6, 8])])
def test_the_last_checkpoint_is_that_of_its_step_though_the_best_is_loaded_at_the_end(
    tmp_path: Path, every: int | None, steps: list[int]
) -> None:
    """Where it is due, and where the training ends between two; the best is the first by a metric that grows."""
    own: dict[int, dict[str, Tensor]] = {}

    class Notes(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            own[state.global_step] = {name: tensor.clone() for name, tensor in kwargs["model"].state_dict().items()}

    class Grows(Trainer):
        def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
            metrics = {"eval_loss": float(self.state.global_step)}
            self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
            return metrics

    made, model, _ = trainer(
        tmp_path / "own",
        *(RecordCheckpoints(tmp_path / "run", optimizer_state=True, every=every), Notes()),
        kind=Grows,
        save_strategy="epoch",
        eval_strategy="epoch",
        load_best_model_at_end=True,
    )
    made.train()
    run = open_run(tmp_path / "run")
    assert [c.step for c in run.checkpoints] == steps
    assert model.state_dict()["net.0.weight"].equal(own[4]["net.0.weight"])  # of the best
    for checkpoint in run.checkpoints:
        kept = own[checkpoint.step or 0]
        assert all(tensor.equal(kept[name]) for name, tensor in read_weights(checkpoint.path).items())
        assert checkpoint.train_loss is not None


def test_a_callback_may_be_attached_to_a_training_that_goes_on(tmp_path: Path) -> None:
    """It records from there on."""
    first, *_ = trainer(tmp_path / "own", DiesAfter(5), save_strategy="steps", save_steps=5)
    with pytest.raises(Dies):
        first.train()
    second, _, rates = trainer(tmp_path / "own", RecordCheckpoints(tmp_path / "run"))
    second.train(resume_from_checkpoint=True)
    run = open_run(tmp_path / "run")
    assert [(c.step, c.epoch) for c in run.checkpoints] == [(8, 2)]
    assert run.history.steps.tolist() == [6, 7, 8]
    assert run.history.learning_rates.tolist() == rates


def test_a_second_training_is_told_how_to_go_on(tmp_path: Path) -> None:
    made, *_ = trainer(tmp_path / "own", RecordCheckpoints(tmp_path / "run"))
    made.train()
    with pytest.raises(RecordError, match=r"goes to step 8\. .* trainer\.train\(resume_from_checkpoint=\.\.\.\) and"):
        made.train()


def test_a_loss_that_is_logged_seldom_is_a_mean_where_it_is_logged(tmp_path: Path) -> None:
    """Also where the log comes at the end of the step that is saved."""
    every, *_ = trainer(tmp_path / "own", RecordCheckpoints(tmp_path / "every"))
    seldom, *_ = trainer(tmp_path / "own", RecordCheckpoints(tmp_path / "seldom", every=3), logging_steps=3)
    epochs, *_ = trainer(tmp_path / "own", RecordCheckpoints(tmp_path / "epochs"), logging_strategy="epoch")
    for one in (every, seldom, epochs):
        one.train()
    losses = open_run(tmp_path / "every").history.losses
    found = open_run(tmp_path / "seldom")
    means = [losses[0:3].mean(), losses[3:6].mean()]
    np.testing.assert_allclose(
        found.history.losses, [*[np.nan] * 2, means[0], *[np.nan] * 2, means[1], *[np.nan] * 2], rtol=LOGGED
    )
    assert [c.step for c in found.checkpoints] == [3, 6, 8]
    np.testing.assert_allclose(train_losses(found)[:2], means, rtol=LOGGED)
    assert found.checkpoints[2].train_loss is None
    found = open_run(tmp_path / "epochs")
    means = [losses[:4].mean(), losses[4:].mean()]
    np.testing.assert_allclose(train_losses(found), means, rtol=LOGGED)


@pytest.mark.parametrize(("saves", "dies_after"), [(3, 5), (2, 3), (4, 4)])
def test_a_resumed_training_has_the_recording_of_a_whole_one(tmp_path: Path, saves: int, dies_after: int) -> None:
    """Resumed after the recorder's last checkpoint, before its first, and at it."""
    settings: dict[str, Any] = {"save_strategy": "steps", "save_steps": saves}
    whole, *_ = trainer(tmp_path / "own", RecordCheckpoints(tmp_path / "whole"))
    whole.train()
    first, *_ = trainer(
        tmp_path / "parts-own", DiesAfter(dies_after), RecordCheckpoints(tmp_path / "parts"), **settings
    )
    with pytest.raises(Dies):
        first.train()
    second, *_ = trainer(tmp_path / "parts-own", RecordCheckpoints(tmp_path / "parts"), **settings)
    second.train(resume_from_checkpoint=True)
    assert files(tmp_path / "parts") == files(tmp_path / "whole")


def test_a_callback_may_be_used_again_after_a_training_that_died(tmp_path: Path) -> None:
    """The recording that died leaves its optimizer; a new one needs a folder without one."""
    callback = RecordCheckpoints(tmp_path / "run", every=2, optimizer_state=True)
    first, *_ = trainer(tmp_path / "own", DiesAfter(3), callback)
    with pytest.raises(Dies):
        first.train()
    assert [c.optimizer_state for c in open_run(tmp_path / "run").checkpoints] == [
        tmp_path / "run" / "step-000002.optimizer.pt"
    ]
    second, *_ = trainer(tmp_path / "own", callback)
    with pytest.raises(RecordError, match=r"has a recording already, which goes to step 2"):
        second.train()
    before = files(tmp_path / "run")
    assert first.optimizer is not None
    first.optimizer.step()
    assert files(tmp_path / "run") == before


def test_a_stream_has_no_epochs(tmp_path: Path) -> None:
    made, *_ = trainer(tmp_path / "own", RecordCheckpoints(tmp_path / "run"), data=Stream())
    with pytest.raises(RecordError, match=r"data has no length, .*RecordCheckpoints\('.*', every=1000\)"):
        made.train()
    made, _, rates = trainer(tmp_path / "own", RecordCheckpoints(tmp_path / "run", every=5), data=Stream())
    made.train()
    assert [(c.step, c.epoch) for c in open_run(tmp_path / "run").checkpoints] == [(5, None), (8, None)]
    assert open_run(tmp_path / "run").history.learning_rates.tolist() == rates


def test_only_the_first_process_records(tmp_path: Path) -> None:
    class NotFirst(TrainerCallback):
        def on_init_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            state.is_world_process_zero = False

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            state.is_world_process_zero = False

    made, _, rates = trainer(tmp_path / "own", NotFirst(), RecordCheckpoints(tmp_path / "run"))
    made.train()
    assert len(rates) == STEPS
    assert not (tmp_path / "run").exists()


def test_steps_that_are_skipped_are_counted_as_the_trainer_does(tmp_path: Path) -> None:
    """As in half precision: accelerate's optimizer does not step its own then, and the Trainer counts on."""

    class Skips(TrainerCallback):
        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            kwargs["optimizer"].gradient_state._set_sync_gradients(state.global_step != 2)

    made, _, rates = trainer(tmp_path / "own", Skips(), RecordCheckpoints(tmp_path / "run", every=3))
    made.train()
    run = open_run(tmp_path / "run")
    assert [c.step for c in run.checkpoints] == [3, 6, 8]
    assert run.history.learning_rates.tolist() == [*rates[:2], [0, 0], *rates[2:]]
    assert list(run.checkpoints[0].learning_rates) == rates[1]


def test_without_transformers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.delitem(sys.modules, "indexer.record.huggingface")
    with pytest.raises(MissingExtraError, match=r"needs transformers: pip install 'proponent\[huggingface\]'"):
        importlib.import_module("indexer.record.huggingface")
