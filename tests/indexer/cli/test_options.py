"""Options that several commands take."""

import pytest

from indexer.cli.options import parse_steps
from indexer.errors import BuildError


def test_steps_are_numbers_between_commas() -> None:
    assert parse_steps("71, 142,355") == (71, 142, 355)
    assert parse_steps(None) == ()


@pytest.mark.parametrize("option", ["", "71,", "71;142", "-1", "7.5", "٧"])
def test_other_steps_are_refused_with_an_example(option: str) -> None:
    with pytest.raises(BuildError, match=r"--steps '.*': expected whole numbers with commas between, as in"):
        parse_steps(option)
