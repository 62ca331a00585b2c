"""Make a golden index, for a new format: python -m tests.golden.make tests/golden/format-2

Indexes of older formats are never made again: they prove that every later version still opens them.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import orjson
import safetensors.torch
import torch

from indexer import BuildSpec, build
from tests.golden.golden_task import task


def checkpoint(folder: Path, name: str, strength: float) -> None:
    """Weights that are whole multiples of 1/64, so that they are the same everywhere."""
    pattern = (torch.arange(32.0).reshape(2, 16) * 7 % 11 - 5) / 64
    state = {"1.weight": strength * pattern, "1.bias": strength * torch.tensor([0.25, -0.25])}
    safetensors.torch.save_file(state, folder / name)


def make(out: Path, **projection: Any) -> None:
    """Build into a new folder; the projection is the identity, unless another one is given.

    Raises:
        FileExistsError: the folder is there already.
    """
    out.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as run:
        checkpoint(Path(run), "first.safetensors", 1.0)
        checkpoint(Path(run), "second.safetensors", 4.0)
        entries = [
            {"file": "first.safetensors", "learning_rate": 0.5, "step": 10, "epoch": 1, "train_loss": 0.75},
            {"file": "second.safetensors", "learning_rate": 0.25, "step": 20, "epoch": 2},
        ]
        (Path(run) / "checkpoints.json").write_bytes(orjson.dumps({"checkpoints": entries}))
        build(task, BuildSpec(Path(run), projection=projection or {"name": "identity"}, batch_size=4, threads=1), out)
    for name in ("log.jsonl", "lock"):  # of the moment, and no part of the format
        (out / name).unlink()


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    make(folder)
    make(folder.with_name(f"{folder.name}-rank1"), name="rank1", numbers=6)
