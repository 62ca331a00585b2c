"""The prefix between two sets of names: what it explains, what it refuses, and what stands beside it."""

import pytest

from indexer.checkpoints.prefix import Prefix, Wanted, find_prefix, likeness
from indexer.errors import CheckpointError

WANTED: Wanted = [{"0.weight": (2, 3)}, {"0.bias": (2,)}, {"1.weight": (2,), "tied.weight": (2,)}]
NAMES = {"0.weight": (2, 3), "0.bias": (2,), "1.weight": (2,)}


def under(*prefixes: str) -> dict[str, tuple[int, ...]]:
    return {f"{prefix}{name}": shape for prefix in prefixes for name, shape in NAMES.items()}


@pytest.mark.parametrize(("file", "expected"), [("", Prefix()), ("net.", Prefix("net.")), ("a.b.", Prefix("a.b."))])
def test_a_prefix_is_found(file: str, expected: Prefix) -> None:
    assert find_prefix(under(file), WANTED, "x") == expected


def test_a_prefix_of_the_module_is_found() -> None:
    wanted = [{f"net.{name}": shape} for name, shape in NAMES.items()]
    assert find_prefix(NAMES, wanted, "x") == Prefix(before="net.")


def test_a_prefix_is_taken_off_and_put_before_and_back() -> None:
    assert (Prefix("a.", "b.").own("a.0"), Prefix("a.", "b.").in_file("b.0")) == ("b.0", "a.0")
    assert (Prefix("a.").own("c.0"), Prefix(before="b.").in_file("c.0")) == (None, None)


def test_any_of_tied_names_will_do() -> None:
    state = under("net.")
    state["net.tied.weight"] = state.pop("net.1.weight")
    assert find_prefix(state, WANTED, "x") == Prefix("net.")


def test_between_two_the_shapes_decide() -> None:
    state = under("a.", "b.") | {"b.0.weight": (9, 9)}
    assert find_prefix(state, WANTED, "x") == Prefix("a.")
    with pytest.raises(CheckpointError, match=r"x has every weight of the task's model twice, under 'a\.' and 'b\.'"):
        find_prefix(under("a.", "b."), WANTED, "x")


def test_what_explains_nothing_is_no_prefix() -> None:
    assert find_prefix({"net.0.weight": (2, 3)}, WANTED, "x") == find_prefix(NAMES, [], "x") == Prefix()


def test_a_prefix_that_has_half_is_alike() -> None:
    state = under("a.") | {"b.0.weight": (7,), "b.0.bias": (7,), "c.0.weight": (7,)}
    assert likeness(state, WANTED, Prefix("a.")) == "b."
    assert likeness(under("a."), WANTED, Prefix("a.")) is None
    assert likeness(under("a.", ""), WANTED, Prefix()) is None  # the module's own names are in no doubt
