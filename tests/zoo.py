"""Small models of the kinds that people train, each with its loss and a batch: what the gradient engine must take.

A model takes one tensor and returns one; all run in milliseconds. Weights are random, nothing is downloaded.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
)

from indexer.task import Loss
from tests.tiny import cross_entropy
from tests.zoo_batches import (
    CLASSES,
    PADDING,
    VOCABULARY,
    Batch,
    images,
    masked,
    next_token_loss,
    numbers,
    pictures,
    sentences,
    sequences,
    squared_error,
    texts,
    token_loss,
    translations,
)


@dataclass(frozen=True, slots=True)
class Specimen:
    """A kind of model: how to make one, its loss of one number an example, and how to draw b examples."""

    make: Callable[[], nn.Module]
    loss: Loss
    batch: Callable[[int], Batch]


class ResidualBlock(nn.Module):
    """Two convolutions with batch norm, beside a shortcut that follows stride and channels."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        same = inputs == outputs and stride == 1
        projection = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        self.shortcut = nn.Identity() if same else nn.Sequential(projection, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm2(self.conv2(self.relu(self.norm1(self.conv1(x)))))
        h += self.shortcut(x)
        outputs: Tensor = self.relu(h)
        return outputs


def resnet() -> nn.Module:
    """[b, 3, 8, 8] -> [b, classes]: a stem, one block of each kind of shortcut, in-place ReLU throughout."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        ResidualBlock(4, 4, 1),
        ResidualBlock(4, 6, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, CLASSES),
    )


def encoder(batch_first: bool) -> nn.TransformerEncoder:
    """Two layers, 8 wide, two heads."""
    layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=batch_first)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


class VisionTransformer(nn.Module):
    """[b, 3, 8, 8] -> [b, classes]: patches by a strided convolution, a class token, a table of positions."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.positions = nn.Parameter(torch.randn(1, 5, 8))
        self.encoder = encoder(batch_first=True)
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patches(x).flatten(2).transpose(1, 2)
        h = torch.cat([self.token.expand(len(x), -1, -1), patches], dim=1) + self.positions
        outputs: Tensor = self.head(self.norm(self.encoder(h)[:, 0]))
        return outputs


class SequenceFirst(nn.Module):
    """[b, 5, 6] -> [b, classes]: an encoder that works on [sequence, batch, width]."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.encoder, self.head = nn.Linear(6, 8), encoder(batch_first=False), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.encoder(self.inner(x.transpose(0, 1))).mean(0))
        return outputs


class EncoderDecoder(nn.Module):
    """Tokens [b, 9] -> [b, 4, vocabulary]: the first five are read, the last four written, with cross attention."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 8)
        self.positions = nn.Embedding(5, 8)
        self.transformer = nn.Transformer(8, 2, 1, 1, 12, batch_first=True)
        self.head = nn.Linear(8, VOCABULARY)

    def forward(self, tokens: Tensor) -> Tensor:
        ahead = torch.ones(4, 4, dtype=torch.bool).triu(1)
        h = self.transformer(self.placed(tokens[:, :5]), self.placed(tokens[:, 5:]), tgt_mask=ahead)
        outputs: Tensor = self.head(h)
        return outputs

    def placed(self, tokens: Tensor) -> Tensor:
        placed: Tensor = self.embedding(tokens) + self.positions(torch.arange(tokens.shape[1]))
        return placed


class Recurrent(nn.Module):
    """Tokens [b, 6] -> [b, classes]: embedding, a recurrent layer, a head on its last state."""

    def __init__(self, layer: nn.LSTM | nn.GRU) -> None:
        super().__init__()
        self.embedding, self.layer = nn.Embedding(VOCABULARY, 4), layer
        self.head = nn.Linear(layer.hidden_size, CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.layer(self.embedding(tokens))[0][:, -1])
        return outputs


class TextCNN(nn.Module):
    """Tokens [b, 8] -> [b, classes]: convolutions of several widths over an embedding, the largest of each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 5, padding_idx=PADDING)
        self.convolutions = nn.ModuleList(nn.Conv1d(5, 4, width) for width in (2, 3))
        self.head = nn.Linear(8, CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        h = self.embedding(tokens).transpose(1, 2)
        found = [convolution(h).relu().amax(2) for convolution in self.convolutions]
        outputs: Tensor = self.head(torch.cat(found, dim=1))
        return outputs


class Pretrained(nn.Module):
    """Tokens [b, t] -> the logits of a model of `transformers`, with padding masked."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.model(input_ids=tokens, attention_mask=(tokens != PADDING).long()).logits
        return logits


def bert_config() -> BertConfig:
    """Two layers, 8 wide."""
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=12,
        max_position_embeddings=8,
        pad_token_id=PADDING,
        bos_token_id=1,
        eos_token_id=2,
    )
    config.num_labels = CLASSES
    return config


def gpt2(vocabulary: int = VOCABULARY, width: int = 8) -> nn.Module:
    """Two layers, the head tied to the embedding of tokens."""
    config = GPT2Config(
        vocab_size=vocabulary,
        n_positions=8,
        n_embd=width,
        n_layer=2,
        n_head=2,
        pad_token_id=PADDING,
        bos_token_id=1,
        eos_token_id=2,
    )
    return Pretrained(GPT2LMHeadModel(config))


class UNet(nn.Module):
    """[b, 2, 8, 8] -> [b, 1, 8, 8]: down by a stride, up by a transposed convolution, with a bridge between."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm1 = nn.Conv2d(2, 4, 3, padding=1), nn.GroupNorm(2, 4)
        self.down, self.norm2 = nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.GroupNorm(3, 6)
        self.up, self.norm3 = nn.ConvTranspose2d(6, 4, 2, stride=2), nn.GroupNorm(1, 8)
        self.last = nn.Conv2d(8, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        fine = F.silu(self.norm1(self.first(x)))
        coarse = F.silu(self.norm2(self.down(fine)))
        outputs: Tensor = self.last(F.silu(self.norm3(torch.cat([fine, self.up(coarse)], dim=1))))
        return outputs


class Bag(nn.Module):
    """Tokens [b, 6] -> [b, classes]: the mean of a bag of words under a small network."""

    def __init__(self) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(VOCABULARY, 6, mode="mean", padding_idx=PADDING)
        self.head = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, CLASSES))

    def forward(self, tokens: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.bag(tokens))
        return outputs


class Windows(nn.Module):
    """[b, 2, 8, 8] -> [b, classes]: four windows of an image in the batch axis, each read by attention of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 8, 3, padding=1)
        self.layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(len(x), 2, 2, 4, 2, 4)
        windows = rows.permute(0, 2, 4, 1, 3, 5).reshape(-1, 2, 4, 4)  # [b * 4, 2, 4, 4]
        h = self.layer(self.first(windows).flatten(2).transpose(1, 2))  # [b * 4, 16, 8]
        outputs: Tensor = self.head(h.reshape(len(x), -1, 8).mean(1))
        return outputs


def regression() -> nn.Module:
    """[b, 6] -> [b, 1]."""
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5), nn.GELU(), nn.Linear(5, 1))


ZOO: dict[str, Specimen] = {
    "resnet": Specimen(resnet, cross_entropy, images(3)),
    "vision transformer": Specimen(VisionTransformer, cross_entropy, images(3)),
    "sequence first": Specimen(SequenceFirst, cross_entropy, sequences),
    "encoder decoder": Specimen(EncoderDecoder, token_loss, translations),
    "lstm": Specimen(lambda: Recurrent(nn.LSTM(4, 5, batch_first=True)), cross_entropy, sentences),
    "gru": Specimen(lambda: Recurrent(nn.GRU(4, 5, batch_first=True)), cross_entropy, sentences),
    "text cnn": Specimen(TextCNN, cross_entropy, sentences),
    "bert classifier": Specimen(
        lambda: Pretrained(BertForSequenceClassification(bert_config())), cross_entropy, sentences
    ),
    "bert masked": Specimen(lambda: Pretrained(BertForMaskedLM(bert_config())), token_loss, masked),
    "gpt2": Specimen(gpt2, next_token_loss, texts),
    "u-net": Specimen(UNet, squared_error, pictures),
    "regression": Specimen(regression, squared_error, numbers),
    "bag of words": Specimen(Bag, cross_entropy, sentences),
    "windows": Specimen(Windows, cross_entropy, images(2)),
}
