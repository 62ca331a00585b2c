"""Files are read without running code from them."""

import pickle
from argparse import Namespace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from indexer.checkpoints.weights_only import load_weights_only, peek_weights_only
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


@pytest.mark.parametrize("zipped", [True, False])
def test_a_peek_finds_the_same(zipped: bool, tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2), "b": 3}, tmp_path / "state.pt", _use_new_zipfile_serialization=zipped)
    found = peek_weights_only(tmp_path / "state.pt", "save it again")
    assert torch.equal(found.pop("a"), torch.ones(2)) and found == {"b": 3}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("core", [b"numpy._core", b"numpy.core"])
def test_numbers_of_numpy_are_read_as_plain_ones(core: bytes, zipped: bool, tmp_path: Path) -> None:
    kinds = (np.bool_, np.int8, np.uint16, np.int32, np.int64, np.float16, np.float32, np.float64)
    numbers = [*(kind(1) for kind in kinds), np.array(2.5, ">f8")[()], np.mean([0.25, 0.5])]
    torch.save(numbers, tmp_path / "state.pt", _use_new_zipfile_serialization=zipped)
    data = (tmp_path / "state.pt").read_bytes()
    if not zipped:  # of a zip file the checksum would change
        (tmp_path / "state.pt").write_bytes(data.replace(b"cnumpy._core.", b"c" + core + b"."))
    for read in (load_weights_only, peek_weights_only):
        found = read(tmp_path / "state.pt", "save it again")
        assert found == [True, 1, 1, 1, 1, 1.0, 1.0, 1.0, 2.5, 0.375]
        assert [type(value) for value in found] == [bool, int, int, int, int, *[float] * 5]


@pytest.mark.parametrize("other", [np.ones(2), np.str_("a"), np.complex64(1j), np.datetime64(0, "s"), np.dtype("O")])
def test_what_else_is_of_numpy_is_refused(other: object, tmp_path: Path) -> None:
    torch.save({"a": other}, tmp_path / "state.pt")
    with pytest.raises(CheckpointError, match="cannot be read as weights only; save it again"):
        load_weights_only(tmp_path / "state.pt", "save it again")


def test_code_is_refused_and_not_run(tmp_path: Path) -> None:
    (tmp_path / "state.pt").write_bytes(pickle.dumps(Hostile(tmp_path / "made"), protocol=2))
    torch.save({"a": Hostile(tmp_path / "made")}, tmp_path / "zipped.pt")
    for name, read in product(("state.pt", "zipped.pt"), (load_weights_only, peek_weights_only)):
        with pytest.raises(CheckpointError, match=f"{name}' cannot be read as weights only; save it again"):
            read(tmp_path / name, "save it again")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x02garbage", bytes(100)])
def test_what_is_no_such_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "state.pt").write_bytes(content)
    for read in (load_weights_only, peek_weights_only):
        with pytest.raises(CheckpointError, match="cannot be read as weights only; save it again"):
            read(tmp_path / "state.pt", "save it again")


def test_a_peek_at_a_file_whose_tensors_were_cut_out_is_refused(tmp_path: Path) -> None:
    """Its directory is whole and names more bytes than the file has."""
    torch.save({"a": torch.ones(10_000)}, tmp_path / "state.pt")
    data = (tmp_path / "state.pt").read_bytes()
    (tmp_path / "state.pt").write_bytes(data[:1000] + data[30_000:])
    with pytest.raises(CheckpointError, match="cannot be read as weights only; save it again"):
        peek_weights_only(tmp_path / "state.pt", "save it again")


def test_the_object_that_is_in_the_way_is_named(tmp_path: Path) -> None:
    torch.save({"args": Namespace(lr=0.1)}, tmp_path / "state.pt")
    expected = r"cannot be read as weights only; save it again \(it holds an object of argparse\.Namespace\)$"
    with pytest.raises(CheckpointError, match=expected):
        load_weights_only(tmp_path / "state.pt", "save it again")
