"""What a user may decide about a build, in Python and in TOML."""

from dataclasses import replace
from pathlib import Path

import pytest

from indexer.building.spec import BuildSpec, read_spec
from indexer.errors import BuildError

RUN = Path("runs/digits")


def spec_file(folder: Path, text: str) -> Path:
    (folder / "spec.toml").write_text(text)
    return folder / "spec.toml"


def test_the_default_is_tracin_with_pca_in_512_bytes() -> None:
    spec = BuildSpec(RUN)
    assert (spec.method, spec.projection) == ("tracin", {"name": "pca", "seed": 0})
    assert (spec.bytes_per_example, spec.coded_bytes, spec.card_queries) == (None, 512, 50)
    assert (spec.batch_size, spec.threads, spec.parameters, spec.preconditioner) == (None, None, (), None)
    assert (spec.memory_format, spec.device) == ("auto", "cpu")
    assert spec.method_parameters(3) == {"projection": {"name": "pca", "seed": 0, "bytes": 512}}


def test_every_decision_can_be_written_in_toml(tmp_path: Path) -> None:
    text = """
method = "tracin"
parameters = ["encoder.*", "head.weight"]
preconditioner = "adam"
batch_size = 7
bytes_per_example = 256
card_queries = 20
threads = 1
memory_format = "contiguous"
device = "cuda:1"
steps = [71, 142]
eta = "interval"
[projection]
name = "pca"
sample = 4000
"""
    expected = BuildSpec(
        RUN,
        "tracin",
        {"name": "pca", "sample": 4000},
        parameters=("encoder.*", "head.weight"),
        bytes_per_example=256,
        preconditioner="adam",
        card_queries=20,
        batch_size=7,
        threads=1,
        memory_format="contiguous",
        device="cuda:1",
        steps=(71, 142),
        eta="interval",
    )
    assert read_spec(spec_file(tmp_path, text), RUN) == expected
    assert expected.method_parameters(5) == {
        "projection": {"name": "pca", "sample": 4000, "bytes": 256},
        "preconditioner": "adam",
    }
    assert read_spec(spec_file(tmp_path, ""), RUN) == BuildSpec(RUN)
    assert read_spec(spec_file(tmp_path, "choose = 5"), RUN) == BuildSpec(RUN, choose=5)
    assert read_spec(spec_file(tmp_path, "card_queries = 0"), RUN).card_queries == 0


@pytest.mark.parametrize("name", ["gaussian", "rank1", "countsketch"])
@pytest.mark.parametrize(
    ("bytes", "checkpoints", "numbers"),
    [(None, 5, 1024), (256, 1, 504), (256, 5, 100), (16, 7, 3), (16, 100, 1)],
)
def test_bytes_become_numbers_of_four_bits(name: str, bytes: int | None, checkpoints: int, numbers: int) -> None:
    """Half a byte a number, after the four bytes of the scale; a number at least."""
    spec = BuildSpec(RUN, projection={"name": name}, bytes_per_example=bytes)
    assert spec.coded_bytes == bytes
    assert spec.method_parameters(checkpoints) == {"projection": {"name": name, "numbers": numbers}}


def test_numbers_that_are_given_are_kept() -> None:
    spec = BuildSpec(RUN, projection={"name": "rank1", "numbers": 64}, bytes_per_example=256)
    assert spec.method_parameters(5) == {"projection": {"name": "rank1", "numbers": 64}}
    assert BuildSpec(RUN, projection={"name": "identity"}).method_parameters(5) == {"projection": {"name": "identity"}}


def test_bytes_of_pca_are_said_in_one_way_or_in_both_alike() -> None:
    inside = BuildSpec(RUN, projection={"name": "pca", "bytes": 64})
    assert inside.coded_bytes == replace(inside, bytes_per_example=64).coded_bytes == 64
    with pytest.raises(BuildError, match="bytes_per_example = 128, and the projection has bytes = 64; give one of t"):
        replace(inside, bytes_per_example=128)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            'bytes_per_example = 64\n[projection]\nname = "identity"',
            "'identity' contradict each other: it keeps all; u",
        ),
        ("bytes_per_example = 15", "bytes_per_example = 15: expected at least 16"),
        ("card_queries = -1", "card_queries = -1: expected at least 0"),
        ('[projection]\nname = "pca"\nsample = "all"', "projection 'pca': sample = 'all'; expected a whole number"),
        ('[projection]\nname = "pca"\nbytes = true', "projection 'pca': bytes = True; expected a whole number"),
    ],
)
def test_a_projection_that_cannot_be_is_refused_before_anything_is_fitted(
    tmp_path: Path, text: str, expected: str
) -> None:
    with pytest.raises(BuildError, match=expected):
        read_spec(spec_file(tmp_path, text), RUN)


@pytest.mark.parametrize("name", ["batch_size", "threads", "choose"])
@pytest.mark.parametrize("value", [0, -1])
def test_counts_are_at_least_one(tmp_path: Path, name: str, value: int) -> None:
    with pytest.raises(BuildError, match=f"{name} = {value}: expected at least 1"):
        read_spec(spec_file(tmp_path, f"{name} = {value}"), RUN)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('memory_format = "nhwc"', "memory_format = 'nhwc': expected one of 'auto', 'contiguous', 'channels_last'"),
        ('eta = "sum"', "eta = 'sum': expected one of 'learning_rate', 'interval'"),
        ('preconditioner = "adamw"', "preconditioner = 'adamw': expected one of 'adam'"),
    ],
)
def test_an_unknown_choice_names_the_known_ones(tmp_path: Path, line: str, expected: str) -> None:
    with pytest.raises(BuildError, match=expected):
        read_spec(spec_file(tmp_path, line), RUN)


@pytest.mark.parametrize("key", ["checkpoints", "batchsize"])
def test_an_unknown_key_names_the_known_ones(tmp_path: Path, key: str) -> None:
    expected = (
        rf"spec\.toml' has the key '{key}'; expected only batch_size, bytes_per_example, card_queries, "
        "choose, device, eta, memory_format, method, parameters, preconditioner, projection, steps, threads"
    )
    with pytest.raises(BuildError, match=expected):
        read_spec(spec_file(tmp_path, f'{key} = "x"'), RUN)


def test_checkpoints_are_chosen_in_one_way() -> None:
    with pytest.raises(BuildError, match="choose and steps both say which checkpoints to take; give one of them"):
        BuildSpec(RUN, choose=2, steps=(71,))


def test_what_is_no_toml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"spec\.toml' cannot be read as TOML: Invalid value"):
        read_spec(spec_file(tmp_path, "batch_size = "), RUN)
    with pytest.raises(BuildError, match=r"none\.toml' cannot be read as TOML: .*No such file"):
        read_spec(tmp_path / "none.toml", RUN)
    (tmp_path / "latin.toml").write_bytes(b'method = "\xff"')
    with pytest.raises(BuildError, match=r"latin\.toml' cannot be read as TOML"):
        read_spec(tmp_path / "latin.toml", RUN)


@pytest.mark.parametrize(
    "line",
    [
        'batch_size = "64"',
        'projection = "rank1"',
        "threads = 1.5",
        "method = 7",
        'parameters = "a"',
        "steps = 71",
        'choose = "5"',
        "bytes_per_example = 256.0",
        "card_queries = true",
    ],
)
def test_a_value_of_another_type_is_refused(tmp_path: Path, line: str) -> None:
    with pytest.raises(BuildError, match=line.split(" ", 1)[0]):
        read_spec(spec_file(tmp_path, line), RUN)
