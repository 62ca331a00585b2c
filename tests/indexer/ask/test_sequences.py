"""A causal language model from checkpoints to an answer: shifted labels, padding, tied embeddings, losses by token."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from transformers import GPT2Config, GPT2LMHeadModel

from indexer import Ask, BuildSpec, GivenExample, KnownExample, Preview, Question, Task, build
from indexer.errors import InputFormatError, QuestionError
from indexer.losses import next_token_cross_entropy
from service.engine import _warm_up
from tests.reference import exact_scores, top_k

FLOAT32 = 1e-4  # relative: products of float32 gradients against float64
WORDS = 20


class Characters:
    """Token numbers, written out with blanks between them."""

    modality = "text"

    def decode(self, payload: Mapping[str, Any]) -> Tensor:
        if not isinstance(payload.get("text"), str):
            raise InputFormatError("expected 'text'")
        return torch.tensor([int(word) for word in payload["text"].split()])

    def preview(self, example: Tensor) -> Preview:
        return Preview("text/plain", " ".join(map(str, example.tolist())).encode())

    def describe(self) -> dict[str, Any]:
        return {"modality": "text", "tokens": 8}


class Language(nn.Module):
    """A tiny GPT-2 with its own embeddings as head; zeros are padding."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=WORDS,
                n_embd=8,
                n_layer=1,
                n_head=2,
                n_positions=8,
                bos_token_id=1,
                eos_token_id=2,
                pad_token_id=0,
            )
        )

    def forward(self, tokens: Tensor) -> Tensor:
        outputs: Tensor = self.inner(input_ids=tokens, attention_mask=(tokens != 0).long()).logits
        return outputs


def loss(logits: Tensor, tokens: Tensor) -> Tensor:
    return next_token_cross_entropy(logits, tokens, ignore=0)


def sentences(rows: int, seed: int) -> TensorDataset:
    tokens = torch.randint(1, WORDS, (rows, 8), generator=torch.Generator().manual_seed(seed))
    for row in range(rows):
        tokens[row, 3 + row % 6 :] = 0
    return TensorDataset(tokens, tokens)


task = Task(model=Language, loss=loss, train=sentences(24, 0), test=sentences(4, 1), codec=Characters())


@pytest.fixture(scope="module")
def states() -> list[dict[str, Tensor]]:
    torch.manual_seed(0)
    return [{name: tensor.clone() for name, tensor in Language().state_dict().items()} for _ in range(2)]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, states: list[dict[str, Tensor]]) -> Path:
    run = tmp_path_factory.mktemp("run")
    for i, state in enumerate(states):
        torch.save(state, run / f"{i}.pt")
    listing = {"checkpoints": [{"file": f"{i}.pt", "learning_rate": 0.1} for i in range(2)]}
    (run / "checkpoints.json").write_bytes(orjson.dumps(listing))
    return build(task, BuildSpec(run, projection={"name": "identity"}), run / "index").folder


def test_every_parameter_is_on_the_factor_path(index: Path) -> None:
    ask = Ask.open(index, task)
    manifest = ask.index.version.manifest
    assert {block.path for block in manifest.blocks} == {"factors"}
    assert manifest.sequential is None
    assert "inner.transformer.wte.weight" in {block.name for block in manifest.blocks}
    ask.close()


def test_a_known_sequence_is_explained_at_its_own_tokens(index: Path, states: list[dict[str, Tensor]]) -> None:
    ask = Ask.open(index, task)
    _warm_up(ask, task)
    ranking = ask.query(Question(KnownExample("test", "1"), k=24))
    assert task.test is not None
    tokens = task.test[1][0][None]
    named = [{name: state[name] for name, _ in Language().named_parameters()} for state in states]
    train = sentences(24, 0).tensors
    scores = exact_scores((Language(), loss), named, [0.1, 0.1], (tokens, tokens), (train[0], train[1]))[0]
    expected = dict(top_k(scores, 24, [str(row) for row in range(24)]))
    assert {hit.id: hit.score for hit in ranking.proponents} == pytest.approx(expected, rel=FLOAT32, abs=1e-5)
    facts = ranking.query
    assert (facts.label, facts.label_source, facts.predicted) == ("8 targets", "own", None)
    assert {hit.label for hit in ranking.proponents} == {"8 targets"}
    ask.close()


@pytest.mark.parametrize(
    "question",
    [
        Question(GivenExample({"text": "1 2 3 4 5 6 7 8"})),
        Question(KnownExample("test", "1"), label="3"),
        Question(KnownExample("test", "1"), target=3.0),
    ],
    ids=["given", "label", "target"],
)
def test_other_questions_are_refused_with_what_can_be_asked(index: Path, question: Question) -> None:
    ask = Ask.open(index, task)
    with pytest.raises(QuestionError, match="this index has several targets an example: ask about an example"):
        ask.query(question)
    ask.close()
