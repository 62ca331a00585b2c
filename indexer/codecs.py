"""Codecs: between a question's JSON, the model's input tensor and a preview that people can look at.

A codec is the only place that knows how an input is written. ``ImageCodec`` reads PNG or JPEG (base64) and
writes PNG previews. Pixels p in 0..255 and model inputs x are tied by x = (p / 255 - mean) / std.
"""

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from indexer.errors import InputFormatError, TaskError

_MODES = {1: "L", 3: "RGB"}


@dataclass(frozen=True, slots=True)
class Preview:
    """What a person is shown of an example: an encoded file and its media type."""

    media_type: str
    data: bytes


@runtime_checkable
class Codec(Protocol):
    """Reads one modality's JSON, and shows examples of it."""

    @property
    def modality(self) -> str:
        """The tag of the question's ``example`` that this codec reads."""

    def decode(self, payload: Mapping[str, Any]) -> Tensor:
        """Return one model input, without a batch axis.

        Raises:
            InputFormatError: the payload is not what ``describe`` says.
        """

    def preview(self, example: Tensor) -> Preview:
        """Return what a person is shown of one model input."""

    def describe(self) -> dict[str, Any]:
        """Return what inputs must look like, as plain JSON; kept in the index."""


@dataclass(frozen=True, slots=True)
class ImageCodec:
    """Images of one size: PNG or JPEG in base64 <-> tensor [channels, height, width] -> PNG.

    ``size`` is (height, width); ``channels`` is 1 (grey) or 3 (RGB); ``mean`` and ``std`` are the
    normalisation of the training inputs, the same for all channels.

    Raises:
        TaskError: the channels are neither 1 nor 3, or std is not positive.
    """

    size: tuple[int, int]
    channels: int
    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        if self.channels not in _MODES:
            raise TaskError(f"ImageCodec(channels={self.channels!r}): expected 1 (grey) or 3 (RGB)")
        if not self.std > 0:
            raise TaskError(f"ImageCodec(std={self.std!r}): expected a positive number")

    @property
    def modality(self) -> str:
        """``image``."""
        return "image"

    def decode(self, payload: Mapping[str, Any]) -> Tensor:
        """Return the image as a float32 tensor [channels, height, width].

        Raises:
            InputFormatError: not base64, not a PNG or JPEG, or of another size.
        """
        try:
            raw = base64.b64decode(_text(payload), validate=True)
        except ValueError as exc:  # binascii.Error, or letters beyond ASCII
            raise InputFormatError(
                "the image is not valid base64; send the bytes of a PNG or JPEG file in base64"
            ) from exc
        image = self._open(raw)
        pixels = np.asarray(image.convert(_MODES[self.channels]), dtype=np.float32)
        planes = torch.from_numpy(pixels.reshape(*self.size, self.channels)).permute(2, 0, 1)
        return ((planes / 255 - self.mean) / self.std).contiguous()

    def preview(self, example: Tensor) -> Preview:
        """Return the input as a PNG, normalisation undone, values outside 0..255 clipped."""
        pixels = (example.detach().float() * self.std + self.mean) * 255
        planes = pixels.round().clamp(0, 255).to(torch.uint8).reshape(self.channels, *self.size)
        array = planes.permute(1, 2, 0).squeeze(2).numpy()
        file = io.BytesIO()
        Image.fromarray(array, _MODES[self.channels]).save(file, format="PNG", optimize=True)
        return Preview("image/png", file.getvalue())

    def describe(self) -> dict[str, Any]:
        """Return modality, height, width and channels."""
        height, width = self.size
        return {"modality": "image", "height": height, "width": width, "channels": self.channels} | {
            "mean": self.mean,
            "std": self.std,
        }

    def _open(self, raw: bytes) -> Image.Image:
        """Open and decode; the size is read from the header, before any pixel is decoded.

        Raises:
            InputFormatError: not a PNG or JPEG, or of another size.
        """
        height, width = self.size
        try:
            image = Image.open(io.BytesIO(raw), formats=("PNG", "JPEG"))
            if image.size == (width, height):
                image.load()
        except (
            UnidentifiedImageError,
            OSError,
            SyntaxError,
            ValueError,
            Image.DecompressionBombError,
            Image.DecompressionBombWarning,  # where warnings are errors
        ) as exc:
            raise InputFormatError("the image cannot be decoded; send a whole PNG or JPEG file in base64") from exc
        if image.size != (width, height):
            raise InputFormatError(
                f"expected an image of {height} x {width} pixels (height x width), found "
                f"{image.height} x {image.width}; resize it as the training images were"
            )
        if image.has_transparency_data:
            raise InputFormatError("the image has transparency; flatten it on the background of the training images")
        if image.mode.startswith(("I", "F")):
            raise InputFormatError(f"expected pixels of 8 bits, found mode {image.mode!r}; convert the image first")
        return image


def _text(payload: Mapping[str, Any]) -> str:
    """Return the payload's data.

    Raises:
        InputFormatError: there is none.
    """
    data = payload.get("data")
    if not isinstance(data, str):
        raise InputFormatError("expected 'data': the bytes of a PNG or JPEG file in base64")
    return data
