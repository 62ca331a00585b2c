"""What a user may decide about a build, in Python and in TOML."""

from pathlib import Path

import pytest

from indexer.building.spec import BuildSpec, read_spec
from indexer.errors import BuildError

RUN = Path("runs/digits")


def spec_file(folder: Path, text: str) -> Path:
    (folder / "spec.toml").write_text(text)
    return folder / "spec.toml"


def test_the_default_is_tracin_with_rank1() -> None:
    spec = BuildSpec(RUN)
    assert (spec.method, spec.projection) == ("tracin", {"name": "rank1", "numbers": 1024, "seed": 0})
    assert (spec.batch_size, spec.threads, spec.parameters, spec.preconditioner) == (None, None, (), None)
    assert (spec.memory_format, spec.device) == ("auto", "cpu")
    assert spec.method_parameters == {"projection": spec.projection}


def test_every_decision_can_be_written_in_toml(tmp_path: Path) -> None:
    text = """
method = "tracin"
parameters = ["encoder.*", "head.weight"]
preconditioner = "adam"
batch_size = 7
threads = 1
memory_format = "contiguous"
device = "cuda:1"
steps = [71, 142]
eta = "interval"
[projection]
name = "gaussian"
numbers = 3
"""
    expected = BuildSpec(
        RUN,
        "tracin",
        {"name": "gaussian", "numbers": 3},
        parameters=("encoder.*", "head.weight"),
        preconditioner="adam",
        batch_size=7,
        threads=1,
        memory_format="contiguous",
        device="cuda:1",
        steps=(71, 142),
        eta="interval",
    )
    assert read_spec(spec_file(tmp_path, text), RUN) == expected
    assert expected.method_parameters == {"projection": expected.projection, "preconditioner": "adam"}
    assert read_spec(spec_file(tmp_path, ""), RUN) == BuildSpec(RUN)
    assert read_spec(spec_file(tmp_path, "choose = 5"), RUN) == BuildSpec(RUN, choose=5)


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
        rf"spec\.toml' has the key '{key}'; expected only batch_size, choose, device, eta, "
        "memory_format, method, parameters, preconditioner, projection, steps, threads"
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
    ],
)
def test_a_value_of_another_type_is_refused(tmp_path: Path, line: str) -> None:
    with pytest.raises(BuildError, match=line.split(" ", 1)[0]):
        read_spec(spec_file(tmp_path, line), RUN)
