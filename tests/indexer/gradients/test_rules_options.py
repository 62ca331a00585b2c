"""Every rule over the shapes and options that its layer takes, against the loop, in float64 and in float32."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from tests.indexer.gradients.test_rules import Tied, assert_blocks_of_the_loop, normalised

CONVOLUTIONS: tuple[Callable[..., nn.Module], ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED: tuple[Callable[..., nn.Module], ...] = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
MODES = ("zeros", "reflect", "replicate", "circular")

# Shapes are small as they are drawn: shrinking a failure would cost half a minute and show no more.
PROPERTY = settings(max_examples=20, deadline=None, derandomize=True, phases=[Phase.generate])
ONE_TO_THREE_AXES = pytest.mark.parametrize("axes", [1, 2, 3])
BATCH = st.integers(3, 5)  # a probe needs three examples
LEADING = st.lists(st.integers(1, 3), max_size=2)
WIDTH = st.integers(1, 5)
SEED = st.integers(0, 2**16)


class Attention(nn.Module):
    """x [b, t, width] attends to itself; with memory > 0 its first rows attend to that many last ones.

    Keys and values are the first numbers of each row, as many as the layer wants.
    """

    def __init__(self, memory: int, *, width: int, batch_first: bool, **options: bool | int) -> None:
        super().__init__()
        self.layer = nn.MultiheadAttention(width, 2, batch_first=batch_first, **options)
        self.memory = memory

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.layer.batch_first else x.transpose(0, 1)
        axis = 1 if self.layer.batch_first else 0
        query = key = value = x
        if self.memory:
            query, key = x.tensor_split([x.shape[axis] - self.memory], dim=axis)
            value = key
        if self.layer.kdim != x.shape[-1] or self.layer.vdim != x.shape[-1]:
            key, value = key[..., : self.layer.kdim], value[..., : self.layer.vdim]
        outputs: Tensor = self.layer(query, key, value, need_weights=False)[0]
        return outputs if self.layer.batch_first else outputs.transpose(0, 1)


def check(make: Callable[[], nn.Module], shape: tuple[int, ...], seed: int) -> None:
    """Compare in both dtypes, on random numbers of a shape."""
    torch.manual_seed(seed)
    assert_blocks_of_the_loop(make(), torch.randn(shape), torch.float64, torch.float32)


def check_tokens(make: Callable[[], nn.Module], rows: int, shape: tuple[int, ...], seed: int) -> None:
    """Compare in both dtypes, on random tokens."""
    torch.manual_seed(seed)
    assert_blocks_of_the_loop(make(), torch.randint(0, rows, shape), torch.float64, torch.float32)


@PROPERTY
@given(b=BATCH, leading=LEADING, n=WIDTH, m=WIDTH, bias=st.booleans(), seed=SEED)
def test_linear(b: int, leading: list[int], n: int, m: int, bias: bool, seed: int) -> None:
    check(lambda: nn.Linear(n, m, bias=bias), (b, *leading, n), seed)


@PROPERTY
@given(b=BATCH, leading=LEADING, n=WIDTH, m=WIDTH, seed=SEED)
def test_addmm_with_a_transposed_weight(b: int, leading: list[int], n: int, m: int, seed: int) -> None:
    check(lambda: Conv1D(m, n), (b, *leading, n), seed)  # type: ignore[no-untyped-call]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@ONE_TO_THREE_AXES
@PROPERTY
@given(data=st.data(), b=BATCH, groups=st.integers(1, 3), bias=st.booleans(), mode=st.sampled_from(MODES), seed=SEED)
def test_convolution(  # noqa: PLR0913 - the options of a convolution
    axes: int, data: st.DataObject, b: int, groups: int, bias: bool, mode: str, seed: int
) -> None:
    def each(low: int, high: int) -> tuple[int, ...]:
        return data.draw(st.tuples(*[st.integers(low, high)] * axes))

    kernel, dilation, more = each(1, 3), each(1, 2), each(0, 2)
    padding = data.draw(st.one_of(st.sampled_from(["same", "valid"]), st.just(each(0, 2))))
    stride = (1,) * axes if padding == "same" else each(1, 3)
    sides = (2,) * axes  # reflection wants more pixels than it adds
    size = [max(d * (k - 1), side) + 1 + m for d, k, side, m in zip(dilation, kernel, sides, more, strict=True)]
    inputs, outputs = groups * data.draw(st.integers(1, 2)), groups * data.draw(st.integers(1, 2))
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    make = CONVOLUTIONS[axes - 1]
    check(lambda: make(inputs, outputs, kernel, bias=bias, padding_mode=mode, **options), (b, inputs, *size), seed)


@ONE_TO_THREE_AXES
@PROPERTY
@given(data=st.data(), b=BATCH, groups=st.integers(1, 3), bias=st.booleans(), seed=SEED)
def test_transposed_convolution(axes: int, data: st.DataObject, b: int, groups: int, bias: bool, seed: int) -> None:
    def each(low: int, high: int) -> tuple[int, ...]:
        return data.draw(st.tuples(*[st.integers(low, high)] * axes))

    kernel, stride, dilation, size = each(1, 3), each(1, 3), each(1, 2), each(3, 4)
    padding = tuple(data.draw(st.integers(0, k - 1)) for k in kernel)
    more = tuple(data.draw(st.integers(0, s - 1)) for s in stride)
    inputs, outputs = groups * data.draw(st.integers(1, 2)), groups * data.draw(st.integers(1, 2))
    options = {"stride": stride, "padding": padding, "output_padding": more, "dilation": dilation, "groups": groups}
    make = TRANSPOSED[axes - 1]
    check(lambda: make(inputs, outputs, kernel, bias=bias, **options), (b, inputs, *size), seed)


@pytest.mark.parametrize("padding", [0, 1, 2])  # what is cut off must not be read as padding
@pytest.mark.parametrize(("stride", "dilation", "more"), [(1, 2, 1), (1, 3, 2), (2, 3, 2)])
@ONE_TO_THREE_AXES
def test_output_padding_of_a_stride_and_more(axes: int, stride: int, dilation: int, more: int, padding: int) -> None:
    make = TRANSPOSED[axes - 1]
    options = {"stride": stride, "dilation": dilation, "output_padding": more, "padding": padding}
    check(lambda: make(2, 3, 2, **options), (4, 2, *(4, 3, 3)[:axes]), 0)


@PROPERTY
@given(data=st.data(), b=BATCH, leading=LEADING, rows=st.integers(1, 6), width=WIDTH, seed=SEED)
def test_embedding(data: st.DataObject, b: int, leading: list[int], rows: int, width: int, seed: int) -> None:
    padding = data.draw(st.none() | st.integers(-rows, rows - 1))
    check_tokens(lambda: nn.Embedding(rows, width, padding_idx=padding), rows, (b, *leading), seed)


@PROPERTY
@given(b=BATCH, t=st.integers(1, 4), rows=st.integers(1, 30), width=st.integers(1, 12), seed=SEED)
def test_an_embedding_that_is_tied_to_its_head(b: int, t: int, rows: int, width: int, seed: int) -> None:
    check_tokens(lambda: Tied(rows, width), rows, (b, t), seed)


@pytest.mark.parametrize("mode", ["sum", "mean"])
@PROPERTY
@given(data=st.data(), b=BATCH, bag=st.integers(1, 5), rows=st.integers(1, 6), width=WIDTH, seed=SEED)
def test_embedding_bag(  # noqa: PLR0913 - shapes and options
    mode: str, data: st.DataObject, b: int, bag: int, rows: int, width: int, seed: int
) -> None:
    padding = data.draw(st.none() | st.integers(-rows, rows - 1))
    check_tokens(lambda: nn.EmbeddingBag(rows, width, mode=mode, padding_idx=padding), rows, (b, bag), seed)


@PROPERTY
@given(
    b=BATCH, leading=LEADING, last=st.lists(st.integers(2, 4), min_size=1, max_size=2), bias=st.booleans(), seed=SEED
)
def test_layer_norm(b: int, leading: list[int], last: list[int], bias: bool, seed: int) -> None:
    check(lambda: normalised(nn.LayerNorm(last, bias=bias)), (b, *leading, *last), seed)


@PROPERTY
@given(
    b=BATCH,
    leading=LEADING,
    last=st.lists(st.integers(2, 4), min_size=1, max_size=2),
    eps=st.sampled_from([None, 1e-3]),
    seed=SEED,
)
def test_rms_norm(b: int, leading: list[int], last: list[int], eps: float | None, seed: int) -> None:
    check(lambda: normalised(nn.RMSNorm(last, eps=eps)), (b, *leading, *last), seed)


@PROPERTY
@given(
    b=BATCH,
    groups=st.integers(1, 3),
    times=st.integers(1, 2),
    size=st.lists(st.integers(2, 3), min_size=1, max_size=3),
    seed=SEED,
)
def test_group_norm(b: int, groups: int, times: int, size: list[int], seed: int) -> None:
    check(lambda: normalised(nn.GroupNorm(groups, groups * times)), (b, groups * times, *size), seed)


@PROPERTY
@given(b=BATCH, channels=WIDTH, size=st.lists(st.integers(1, 3), max_size=2), seed=SEED)
def test_batch_norm(b: int, channels: int, size: list[int], seed: int) -> None:
    layer = nn.BatchNorm2d if len(size) == 2 else nn.BatchNorm1d
    check(lambda: normalised(layer(channels)), (b, channels, *size), seed)


ATTENTION = {"b": BATCH, "bias": st.booleans(), "batch_first": st.booleans(), "half": st.integers(1, 3), "seed": SEED}


@PROPERTY
@given(t=st.integers(1, 4), **ATTENTION)
def test_self_attention(b: int, t: int, half: int, bias: bool, batch_first: bool, seed: int) -> None:
    check(lambda: Attention(0, width=2 * half, bias=bias, batch_first=batch_first), (b, t, 2 * half), seed)


@PROPERTY
@given(data=st.data(), t=st.integers(1, 4), **ATTENTION)
def test_attention_with_keys_and_values_of_other_widths(  # noqa: PLR0913 - shapes and options
    data: st.DataObject, b: int, t: int, half: int, bias: bool, batch_first: bool, seed: int
) -> None:
    options = {"kdim": data.draw(st.integers(1, 2 * half)), "vdim": data.draw(st.integers(1, 2 * half))}
    check(lambda: Attention(0, width=2 * half, bias=bias, batch_first=batch_first, **options), (b, t, 2 * half), seed)


@PROPERTY
@given(t=st.integers(1, 4), memory=st.integers(1, 3), **ATTENTION)
def test_cross_attention(  # noqa: PLR0913 - shapes and options
    b: int, t: int, memory: int, half: int, bias: bool, batch_first: bool, seed: int
) -> None:
    check(
        lambda: Attention(memory, width=2 * half, bias=bias, batch_first=batch_first), (b, t + memory, 2 * half), seed
    )
