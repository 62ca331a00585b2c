"""Adapters as PEFT saves them: matched by name, held against their configuration, loaded as PEFT does."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification

from indexer.checkpoints.adapters import check_config, own_names_of_adapter
from indexer.checkpoints.run import Checkpoint, Run
from indexer.checkpoints.states import read_states
from indexer.checkpoints.weights import read_weights
from indexer.errors import CheckpointError

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning"),
]


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
    "with biases, and a head": {"bias": "all", "modules_to_save": ["head"]},
}


@pytest.mark.parametrize("kind", KINDS)
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


def classifier() -> BertForSequenceClassification:
    config = BertConfig(
        vocab_size=9,
        hidden_size=4,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=4,
        max_position_embeddings=4,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        return BertForSequenceClassification(config)


def for_sequences(**options: Any) -> peft.LoraConfig:
    """A configuration whose task type makes PEFT add the heads that it knows, each time that it is used."""
    return peft.LoraConfig(**{"r": 2, "target_modules": ["query"], "task_type": "SEQ_CLS", **options})


def tokens_to(model: nn.Module) -> Tensor:
    outputs: Tensor = model.eval()(input_ids=torch.arange(8).reshape(2, 4)).logits
    return outputs


def test_a_task_may_make_its_model_of_what_was_saved(tmp_path: Path) -> None:
    trained = moved(peft.get_peft_model(classifier(), for_sequences()))
    run = saved(trained, tmp_path)
    config = peft.PeftConfig.from_pretrained(str(tmp_path))
    config.inference_mode = False  # as it is saved, the adapter would be frozen
    again = peft.get_peft_model(classifier(), config)
    for other in (again, peft.PeftModel.from_pretrained(classifier(), tmp_path, is_trainable=True)):
        read_states(run, other)
        assert tokens_to(other).allclose(tokens_to(trained))


def test_a_frozen_adapter_is_refused_with_the_way_out(tmp_path: Path) -> None:
    run = saved(peft.get_peft_model(classifier(), for_sequences()), tmp_path)
    frozen = peft.PeftModel.from_pretrained(classifier(), tmp_path)
    with pytest.raises(CheckpointError, match=r"that of the task's model is frozen; .*is_trainable=True"):
        read_states(run, frozen)


def test_an_adapter_that_transformers_itself_holds_is_one(tmp_path: Path) -> None:
    trained, other = classifier(), classifier()
    for model in (trained, other):
        model.add_adapter(for_sequences(task_type=None))
    moved(trained)
    read_states(saved(trained, tmp_path), other)
    assert tokens_to(other).allclose(tokens_to(trained))


@pytest.mark.parametrize(
    ("kind", "key"), [(peft.LoHaConfig, "alpha"), (peft.LoKrConfig, "alpha"), (peft.LoraConfig, "lora_alpha")]
)
def test_another_scaling_is_refused_of_every_kind(tmp_path: Path, kind: type, key: str) -> None:
    one, other = (peft.get_peft_model(base(), kind(r=2, target_modules=["q"], **{key: value})) for value in (8, 64))
    saved(one, tmp_path)
    with pytest.raises(CheckpointError, match=f"x was trained with {key} = 8; the adapter of the task's model has 64"):
        check_config(tmp_path, other, "x")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"lora_alpha": 32}, "x was trained with lora_alpha = 32; the adapter of the task's model has 8. Make it"),
        ({"use_rslora": True}, "x was trained with use_rslora = True; the adapter of the task's model has False"),
        ({"r": 4}, "x was trained with r = 4; the adapter of the task's model has 2"),
        (
            {"init_lora_weights": "pissa"},
            r"x was trained with init_lora_weights = 'pissa'; the adapter of .* has 'any'",
        ),
    ],
)
def test_another_configuration_is_refused(tmp_path: Path, options: dict[str, Any], expected: str) -> None:
    saved(adapted(**options), tmp_path)
    with pytest.raises(CheckpointError, match=expected):
        check_config(tmp_path, adapted(), "x")


def test_what_changes_no_output_may_differ(tmp_path: Path) -> None:
    saved(adapted(lora_dropout=0.5, init_lora_weights="gaussian"), tmp_path)
    check_config(tmp_path, adapted(lora_dropout=0.0), "x")


@pytest.mark.parametrize("spoil", [lambda path: path.unlink(), lambda path: path.write_text("{")])
def test_a_configuration_that_cannot_be_read_is_refused(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    saved(adapted(), tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["r"] == 2
    spoil(tmp_path / "adapter_config.json")
    with pytest.raises(CheckpointError, match=r"x: expected 'adapter_config\.json' beside the adapter's weights"):
        check_config(tmp_path, adapted(), "x")
