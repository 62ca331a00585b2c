"""Files are read without running code from them."""

import pickle
from pathlib import Path

import pytest
import torch

from indexer.checkpoints.weights_only import load_weights_only
from indexer.errors import CheckpointError


class Hostile:
    """Would make a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (str(self.path),))


def test_tensors_and_plain_values_are_read(tmp_path: Path) -> None:
    content = {"steps": [1, 2], "betas": (0.9, 0.99)}
    torch.save({"a": torch.ones(2), **content}, tmp_path / "state.pt")
    found = load_weights_only(tmp_path / "state.pt", "save it again")
    assert torch.equal(found.pop("a"), torch.ones(2)) and found == content


def test_code_is_refused_and_not_run(tmp_path: Path) -> None:
    (tmp_path / "state.pt").write_bytes(pickle.dumps(Hostile(tmp_path / "made"), protocol=2))
    torch.save({"a": Hostile(tmp_path / "made")}, tmp_path / "zipped.pt")
    for name in ("state.pt", "zipped.pt"):
        with pytest.raises(CheckpointError, match=f"{name}' cannot be read as weights only; save it again"):
            load_weights_only(tmp_path / name, "save it again")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x02garbage", bytes(100)])
def test_what_is_no_such_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "state.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match="cannot be read as weights only; save it again"):
        load_weights_only(tmp_path / "state.pt", "save it again")
