"""Folders of Hugging Face transformers, from file to answer: shards, tied embeddings, a task's wrapper, LoRA."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification, Trainer, TrainingArguments

from indexer import Ask, BuildSpec, KnownExample, Preview, Question, Task, build
from indexer.checkpoints.folder import open_run
from indexer.checkpoints.states import read_states
from indexer.errors import CheckpointError, TaskError
from tests.reference import exact_scores, in_float64, top_k

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
FLOAT32 = 1e-4  # relative: products of float32 gradients against float64
CONFIG = BertConfig(
    vocab_size=20,
    hidden_size=8,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=16,
    max_position_embeddings=8,
)
SHARES = ["attention.self.query", "attention.self.value"]


class Tokens:
    """Token numbers."""

    modality = "text"

    def decode(self, payload: Mapping[str, Any]) -> Tensor:
        return torch.tensor(payload["tokens"])

    def preview(self, example: Tensor) -> Preview:
        return Preview("text/plain", " ".join(map(str, example.tolist())).encode())

    def describe(self) -> dict[str, Any]:
        return {"modality": "text", "tokens": 6}


class Logits(nn.Module):
    """What a task puts around a model of the hub, so that outputs are one tensor."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, tokens: Tensor) -> Tensor:
        outputs: Tensor = self.inner(input_ids=tokens).logits
        return outputs


def loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets, reduction="none")


def sentences() -> TensorDataset:
    tokens = torch.randint(1, 20, (16, 6), generator=torch.Generator().manual_seed(0))
    return TensorDataset(tokens, tokens[:, 0] % 2)


def classifier() -> BertForSequenceClassification:
    """The base: the same each time, as what is loaded from the hub is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return BertForSequenceClassification(CONFIG)


def with_adapter(base: nn.Module) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        config = peft.LoraConfig(r=2, target_modules=SHARES, modules_to_save=["classifier"], lora_dropout=0.0)
        found: nn.Module = peft.get_peft_model(base, config)
        return found


def task_of(model: Any) -> Task:
    return Task(
        model=lambda: Logits(model()), loss=loss, train=sentences(), test=sentences(), codec=Tokens(), labels=["a", "b"]
    )


def trained(model: nn.Module, folder: Path) -> None:
    """Four epochs of the Trainer, a checkpoint each, in eight steps; a rate at which even few numbers move."""
    rows = [{"input_ids": tokens, "labels": label} for tokens, label in zip(*sentences().tensors, strict=True)]
    arguments = TrainingArguments(
        str(folder),
        num_train_epochs=4,
        per_device_train_batch_size=8,
        learning_rate=0.05,
        logging_steps=1,
        save_strategy="epoch",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    Trainer(model, arguments, train_dataset=rows).train()


def check_answer(task: Task, folder: Path, out: Path, load: Callable[[Path], nn.Module]) -> None:
    """The top of an answer is that of exact scores by a float64 loop over all trainable parameters.

    load: a checkpoint's model, by transformers or PEFT itself. Trainer's own schedule is linear: step t of 8 uses
    0.05 (1 - (t - 1) / 8), and a checkpoint follows each second step.
    """
    version = build(task, BuildSpec(folder, projection={"name": "identity"}), out)
    models = [Logits(load(folder / f"checkpoint-{step}")) for step in (2, 4, 6, 8)]
    states = [dict((*model.named_parameters(), *model.named_buffers())) for model in models]
    etas = [0.05 * (1 - (step - 1) / 8) for step in (2, 4, 6, 8)]
    inputs, targets = sentences().tensors
    expected = exact_scores((task.model(), loss), states, etas, (inputs[:1], targets[:1]), (inputs, targets))
    ranking = Ask.open(out, task).query(Question(KnownExample("test", "0"), label=task.label_of(targets[0]), k=5))
    truth = top_k(expected[0], 5, [str(row) for row in range(16)])
    assert [hit.id for hit in ranking.proponents] == [id for id, _ in truth]
    assert [hit.score for hit in ranking.proponents] == pytest.approx([score for _, score in truth], rel=FLOAT32)
    assert len(version.manifest.checkpoints) == 4


def sharded(folder: Path) -> None:
    """Cut the one file of every checkpoint in many, as large models are saved."""
    for checkpoint in folder.glob("checkpoint-*"):
        model = BertForSequenceClassification.from_pretrained(checkpoint)
        (checkpoint / "model.safetensors").unlink()
        model.save_pretrained(checkpoint, max_shard_size="2KB")
        assert len(list(checkpoint.glob("model-*.safetensors"))) > 2


def test_shards_of_a_trainer_become_an_answer_for_a_task_that_wraps_the_model(tmp_path: Path) -> None:
    trained(classifier(), tmp_path / "run")
    whole = read_states(open_run(tmp_path / "run"), Logits(classifier())).states
    sharded(tmp_path / "run")
    again = read_states(open_run(tmp_path / "run"), Logits(classifier())).states
    assert all(a[name].equal(b[name]) for a, b in zip(whole, again, strict=True) for name in a)
    check_answer(
        task_of(classifier), tmp_path / "run", tmp_path / "index", BertForSequenceClassification.from_pretrained
    )


def test_a_tied_head_that_the_file_leaves_out_is_its_embedding(tmp_path: Path) -> None:
    model = BertForMaskedLM(CONFIG)
    (tmp_path / "checkpoint-1").mkdir()
    model.save_pretrained(tmp_path / "checkpoint-1")
    (tmp_path / "checkpoint-1" / "trainer_state.json").write_text(
        json.dumps({"global_step": 1, "epoch": 1.0, "log_history": [{"step": 1, "loss": 1.0, "learning_rate": 0.1}]})
    )
    [state] = read_states(open_run(tmp_path), BertForMaskedLM(CONFIG)).states
    assert all(state[name].equal(tensor) for name, tensor in model.named_parameters())


@pytest.mark.slow
def test_adapters_become_an_answer_and_leave_the_base_out_of_the_index(tmp_path: Path) -> None:
    trained(with_adapter(classifier()), tmp_path / "run")
    assert all(checkpoint.adapter for checkpoint in open_run(tmp_path / "run").checkpoints)
    check_answer(
        task_of(lambda: with_adapter(classifier())),
        tmp_path / "run",
        tmp_path / "index",
        lambda path: peft.PeftModel.from_pretrained(classifier(), path, is_trainable=True),
    )
    base = sum(4 * parameter.numel() for parameter in classifier().parameters())
    manifest = Ask.open(tmp_path / "index", task_of(lambda: with_adapter(classifier()))).index.version.manifest
    assert all(entry.adapter and entry.object.bytes < base / 2 for entry in manifest.checkpoints)


def test_an_adapter_is_loaded_as_peft_itself_does(tmp_path: Path) -> None:
    model = with_adapter(classifier())
    trained(model, tmp_path / "run")
    last = sorted((tmp_path / "run").glob("checkpoint-*"))[-1]
    theirs = peft.PeftModel.from_pretrained(classifier(), last, is_trainable=True)
    ours = with_adapter(classifier())
    read_states(open_run(tmp_path / "run"), ours)
    tokens = sentences().tensors[0]
    outputs = [in_float64(Logits(model))(tokens) for model in (theirs, ours)]
    assert outputs[0].allclose(outputs[1], rtol=1e-12)


def test_an_adapter_for_a_plain_model_is_refused(tmp_path: Path) -> None:
    trained(with_adapter(classifier()), tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"checkpoint 1 of 4 .* is an adapter, and the task's model has none"):
        build(task_of(classifier), BuildSpec(tmp_path / "run"), tmp_path / "index")


def test_an_adapter_over_a_base_of_chance_is_refused(tmp_path: Path) -> None:
    trained(with_adapter(classifier()), tmp_path / "run")
    expected = r"the checkpoints are adapters, and .* of their base is another each time task"
    with pytest.raises(TaskError, match=expected):
        task = task_of(lambda: with_adapter(BertForSequenceClassification(CONFIG)))
        build(task, BuildSpec(tmp_path / "run"), tmp_path / "index")
