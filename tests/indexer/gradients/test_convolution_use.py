"""Every way of a convolution's use against the loop, in both orders of memory, whichever way is less work."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from indexer.gradients.convolution_use import ConvolutionUse, Geometry
from tests.indexer.gradients.test_uses import PROPERTY, SINGLE, assert_agrees, dense_of_loop
from tests.reference import relative_error

DOUBLE = 1e-10  # float64: rounding of sums over a few hundred terms is below 1e-14
LAYERS: tuple[Callable[..., nn.Module], ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@PROPERTY
@given(data=st.data(), axes=st.integers(1, 3), groups=st.integers(1, 3), bias=st.booleans())
def test_convolution_equals_the_loop(data: st.DataObject, axes: int, groups: int, bias: bool) -> None:
    channels, outputs = (groups * data.draw(st.integers(1, 2)) for _ in range(2))
    kernel = tuple(data.draw(st.integers(1, 3)) for _ in range(axes))
    stride, dilation = (tuple(data.draw(st.integers(1, 2)) for _ in range(axes)) for _ in range(2))
    padding = tuple(data.draw(st.integers(0, 2)) for _ in range(axes))
    layer = LAYERS[axes - 1](channels, outputs, kernel, stride, padding, dilation, groups, bias).double()
    x = torch.randn(3, channels, *(7, 6, 5)[:axes], dtype=torch.float64)
    delta = torch.randn(layer(x).shape, dtype=torch.float64)
    use = ConvolutionUse(delta, x, bias, Geometry(kernel, stride, padding, dilation, groups))
    assert_agrees(use, dense_of_loop(layer, x, delta))


def test_float32_factors_agree_to_float32_rounding() -> None:
    layer = nn.Conv2d(3, 8, 3, padding=1)
    x, delta = torch.randn(8, 3, 12, 12), torch.randn(8, 8, 12, 12)
    use = ConvolutionUse(delta, x, bias=True, geometry=Geometry((3, 3), (1, 1), (1, 1), (1, 1), 1))
    assert_agrees(use, dense_of_loop(layer, x, delta), SINGLE)


def test_the_bias_counts_once_an_output_position_and_not_once_a_padded_pixel() -> None:
    geometry = Geometry((3, 3), (1, 1), (5, 5), (1, 1), 1)
    x, delta = torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 10, 10)
    block = ConvolutionUse(delta, x, bias=True, geometry=geometry).sandwich(None, None)
    assert block[0, 0].tolist() == [0.0] * 9 + [100.0]


@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels last"])
@pytest.mark.parametrize(("groups", "r1", "r2"), [(1, None, 15), (1, 4, 4), (2, 4, None), (2, None, 5)])
def test_sandwiches_in_both_orders_of_memory(
    groups: int, r1: int | None, r2: int | None, last: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.gradients.convolution_use.PATCHES", 2 * 30 * 37)  # two examples at once
    x, delta = _randn(5, 8, 6, 5), _randn(5, 6, 6, 5)
    expected = dense_of_loop(nn.Conv2d(8, 6, 3, padding=1, groups=groups), x, delta)
    left, right = (None if r is None else _randn(r, n) for r, n in ((r1, 6), (r2, expected.shape[2])))
    expected = expected if left is None else left @ expected
    expected = expected if right is None else expected @ right.T
    if last:
        x, delta = (tensor.to(memory_format=torch.channels_last) for tensor in (x, delta))
    use = ConvolutionUse(delta, x, True, Geometry((3, 3), (1, 1), (1, 1), (1, 1), groups))
    assert relative_error(use.sandwich(left, right), expected) < DOUBLE


@pytest.mark.parametrize(("channels", "size"), [(1, 12), (3, 4)], ids=["along pixels", "along channels"])
@pytest.mark.parametrize("groups", [1, 2])
def test_both_orders_of_patches(channels: int, size: int, groups: int) -> None:
    layer = nn.Conv2d(channels * groups, 2 * groups, (3, 2), stride=(1, 2), dilation=(2, 1), groups=groups).double()
    x = _randn(3, channels * groups, size + 2, size + 3)
    delta = _randn(*layer(x).shape)
    use = ConvolutionUse(delta, x, True, Geometry((3, 2), (1, 2), (0, 0), (2, 1), groups))
    assert_agrees(use, dense_of_loop(layer, x, delta))


def _randn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)
