"""Images in and out: exact round trips, and refusals of what is not a whole image of the right size."""

import base64
import io
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from indexer.codecs import Codec, ImageCodec
from indexer.errors import InputFormatError, TaskError

GREY = ImageCodec(size=(5, 7), channels=1)
COLOUR = ImageCodec(size=(5, 7), channels=3, mean=0.5, std=0.25)
HALF_A_BIT = 1e-6  # float32 rounding of (p / 255 - mean) / std, of values up to 2


def payload(data: bytes) -> dict[str, str]:
    return {"data": base64.b64encode(data).decode()}


def encoded(pixels: np.ndarray, form: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, **options)
    return file.getvalue()


def header_only(width: int, height: int) -> bytes:
    """A PNG that declares a size and has almost no pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.fixture
def grey(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (5, 7), dtype=np.uint8)


@pytest.fixture
def colour(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)


def test_grey_pixels_become_one_plane(grey: np.ndarray) -> None:
    found = GREY.decode(payload(encoded(grey)))
    assert found.dtype == torch.float32
    assert found.equal(torch.from_numpy(grey)[None].float() / 255)


def test_colours_become_three_normalised_planes(colour: np.ndarray) -> None:
    found = COLOUR.decode(payload(encoded(colour)))
    expected = (torch.from_numpy(colour).permute(2, 0, 1) / 255 - 0.5) / 0.25
    torch.testing.assert_close(found, expected, rtol=0, atol=HALF_A_BIT)


def test_another_number_of_channels_is_converted(grey: np.ndarray) -> None:
    found = COLOUR.decode(payload(encoded(grey)))
    assert found.shape == (3, 5, 7)
    assert found[0].equal(found[1])
    assert found[0].equal(found[2])


def test_jpeg_is_read_near_to_its_pixels() -> None:
    flat = np.full((5, 7), 128, dtype=np.uint8)
    found = GREY.decode(payload(encoded(flat, "JPEG", quality=95)))
    torch.testing.assert_close(found, torch.full((1, 5, 7), 128 / 255), rtol=0, atol=2 / 255)


@pytest.mark.parametrize("codec", [GREY, COLOUR], ids=["grey", "colour"])
def test_a_preview_decodes_to_the_input_bit_for_bit(codec: ImageCodec, grey: np.ndarray, colour: np.ndarray) -> None:
    example = codec.decode(payload(encoded(grey if codec is GREY else colour)))
    preview = codec.preview(example)
    assert preview.media_type == "image/png"
    assert codec.decode(payload(preview.data)).equal(example)


def test_a_preview_clips_what_no_pixel_can_show() -> None:
    preview = GREY.preview(torch.linspace(-1, 2, 35).reshape(1, 5, 7))
    pixels = np.asarray(Image.open(io.BytesIO(preview.data)))
    assert pixels[0, 0] == 0
    assert pixels[4, 6] == 255


def test_description_says_what_inputs_must_look_like() -> None:
    assert COLOUR.describe() == {"modality": "image", "height": 5, "width": 7, "channels": 3, "mean": 0.5, "std": 0.25}
    assert COLOUR.modality == "image"
    assert isinstance(COLOUR, Codec)


def test_two_channels_are_refused() -> None:
    with pytest.raises(TaskError, match=r"ImageCodec\(channels=2\): expected 1 \(grey\) or 3 \(RGB\)"):
        ImageCodec(size=(5, 7), channels=2)


@pytest.mark.parametrize("std", [0.0, -1.0, float("nan")])
def test_std_must_be_positive(std: float) -> None:
    with pytest.raises(TaskError, match=rf"ImageCodec\(std={std}\): expected a positive number"):
        ImageCodec(size=(5, 7), channels=1, std=std)


@pytest.mark.parametrize("data", ["not base64!", "abc", "AAAA\n", "dürfte"])
def test_what_is_not_base64_is_refused(data: str) -> None:
    with pytest.raises(InputFormatError, match="the image is not valid base64; send the bytes of a PNG or JPEG file"):
        GREY.decode({"data": data})


@pytest.mark.parametrize("document", [{}, {"data": 7}, {"data": None}, {"png": "AAAA"}])
def test_a_payload_without_data_is_refused(document: Mapping[str, Any]) -> None:
    with pytest.raises(InputFormatError, match="data"):
        GREY.decode(document)


@pytest.mark.parametrize("form", ["GIF", "BMP", "TIFF"])
def test_other_formats_are_refused(grey: np.ndarray, form: str) -> None:
    with pytest.raises(InputFormatError, match="the image cannot be decoded; send a whole PNG or JPEG file in base64"):
        GREY.decode(payload(encoded(grey, form)))


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_a_truncated_file_is_refused(rng: np.random.Generator, form: str) -> None:
    raw = encoded(rng.integers(0, 256, (5, 7), dtype=np.uint8), form)
    for length in range(0, len(raw) - 40, 7):
        with pytest.raises(InputFormatError, match="the image cannot be decoded"):
            GREY.decode(payload(raw[:length]))


@given(st.binary(max_size=80), st.integers(0, 200), st.sampled_from(["PNG", "JPEG"]))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_damaged_files_are_read_or_refused_but_never_break_the_reader(noise: bytes, place: int, form: str) -> None:
    raw = encoded(np.arange(35, dtype=np.uint8).reshape(5, 7), form)
    damaged = raw[:place] + noise + raw[place + len(noise) :]
    try:
        assert GREY.decode(payload(damaged)).shape == (1, 5, 7)
    except InputFormatError as exc:
        assert "the image" in str(exc)


def test_another_size_names_both() -> None:
    expected = r"expected an image of 5 x 7 pixels \(height x width\), found 7 x 5; resize it"
    with pytest.raises(InputFormatError, match=expected):
        GREY.decode(payload(encoded(np.zeros((7, 5), dtype=np.uint8))))


def test_a_large_declared_size_is_refused_from_the_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image.Image, "load", lambda image: pytest.fail("pixels were decoded"))
    with pytest.raises(InputFormatError, match="found 3000 x 4000"):
        GREY.decode(payload(header_only(4000, 3000)))


@pytest.mark.parametrize("side", [10_000, 60_000])
def test_a_decompression_bomb_is_refused_from_the_header(monkeypatch: pytest.MonkeyPatch, side: int) -> None:
    """Pillow warns of the smaller one and refuses the larger; neither may be decoded, nor break the reader."""
    monkeypatch.setattr(Image.Image, "load", lambda image: pytest.fail("pixels were decoded"))
    with pytest.raises(InputFormatError, match=r"the image cannot be decoded|expected an image of 5 x 7 pixels"):
        GREY.decode(payload(header_only(side, side)))


def test_sixteen_bit_pixels_are_not_read_as_eight() -> None:
    with pytest.raises(InputFormatError, match="8 bits"):
        GREY.decode(payload(encoded(np.full((5, 7), 300, dtype=np.uint16))))
