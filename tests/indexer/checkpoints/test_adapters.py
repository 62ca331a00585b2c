"""Adapters as PEFT saves them: matched by name, held against their configuration, loaded as PEFT does."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch import Tensor, nn

from indexer.checkpoints.adapters import check_config, own_names_of_adapter
from indexer.checkpoints.run import Checkpoint, Run
from indexer.checkpoints.states import read_states
from indexer.checkpoints.weights import read_weights
from indexer.errors import CheckpointError


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.v, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.v(self.q(inputs).tanh()).tanh())
        return outputs


def base() -> Base:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return Base()


def adapted(**options: Any) -> nn.Module:
    config = peft.LoraConfig(**{"r": 2, "target_modules": ["q", "v"], **options})
    model: nn.Module = peft.get_peft_model(base(), config)
    return model


def moved(model: nn.Module) -> nn.Module:
    """Every trainable parameter moved off its start, where adapters do nothing."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter))
    return model


def saved(model: nn.Module, folder: Path) -> Run:
    model.save_pretrained(folder)  # type: ignore[operator]
    return Run(folder, "a test", (Checkpoint(folder, adapter=True),))


KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "with a head of its own": {"modules_to_save": ["head"]},
    "with magnitudes": {"use_dora": True},
    "scaled by rank": {"use_rslora": True},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_saved_adapter_is_loaded_into_another_model_of_its_kind(tmp_path: Path, kind: str) -> None:
    trained, other = moved(adapted(**KINDS[kind])), adapted(**KINDS[kind])
    inputs = torch.randn(3, 4)
    assert not trained(inputs).allclose(other(inputs))
    read_states(saved(trained, tmp_path), other)
    assert trained.eval()(inputs).allclose(other.eval()(inputs))


def test_the_active_adapter_of_several_is_meant(tmp_path: Path) -> None:
    trained, other = moved(adapted()), adapted()
    other.add_adapter("second", peft.LoraConfig(r=2, target_modules=["q", "v"]))  # type: ignore[operator]
    other.set_adapter("default")  # type: ignore[operator]
    read_states(saved(trained, tmp_path), other)
    inputs = torch.randn(3, 4)
    assert trained.eval()(inputs).allclose(other.eval()(inputs))


def test_an_adapter_needs_a_model_with_one(tmp_path: Path) -> None:
    run = saved(adapted(), tmp_path)
    with pytest.raises(CheckpointError, match=r"is an adapter, and the task's model has none: .*proponent\[hugging"):
        read_states(run, base())


def test_weights_that_the_adapter_has_not_are_refused(tmp_path: Path) -> None:
    saved(adapted(modules_to_save=["head"]), tmp_path)
    expected = r"x has '.*head\..*', which the adapter of the task's model has not; was it made with another config\?"
    state = read_weights(tmp_path)
    with pytest.raises(CheckpointError, match=expected):
        own_names_of_adapter({**state, "base_model.model.head.other": torch.ones(1)}, adapted(), "x")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"lora_alpha": 32}, "x was trained with lora_alpha = 32; the adapter of the task's model has 8. Make it with"),
        ({"use_rslora": True}, "x was trained with use_rslora = True; the adapter of the task's model has False"),
        ({"r": 4}, "x was trained with r = 4; the adapter of the task's model has 2"),
        ({"modules_to_save": ["head"]}, r"x was trained with modules_to_save = \['head'\]; the adapter of .* has None"),
    ],
)
def test_another_configuration_is_refused(tmp_path: Path, options: dict[str, Any], expected: str) -> None:
    saved(adapted(**options), tmp_path)
    with pytest.raises(CheckpointError, match=expected):
        check_config(tmp_path, adapted(), "x")


def test_what_changes_no_output_may_differ(tmp_path: Path) -> None:
    saved(adapted(lora_dropout=0.5), tmp_path)
    check_config(tmp_path, adapted(lora_dropout=0.0), "x")


@pytest.mark.parametrize("spoil", [lambda path: path.unlink(), lambda path: path.write_text("{")])
def test_a_configuration_that_cannot_be_read_is_refused(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    saved(adapted(), tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["r"] == 2
    spoil(tmp_path / "adapter_config.json")
    with pytest.raises(CheckpointError, match=r"x: expected 'adapter_config\.json' beside the adapter's weights"):
        check_config(tmp_path, adapted(), "x")
