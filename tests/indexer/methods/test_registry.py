"""Methods by name."""

import pytest

from indexer.errors import BuildError
from indexer.methods.method import MethodKind
from indexer.methods.registry import METHODS, method_kind
from indexer.methods.tracin_kind import TracInKind


def test_every_registered_method_can_be_fitted_and_opened() -> None:
    assert all(isinstance(kind, MethodKind) for kind in METHODS.values())


def test_tracin_by_name() -> None:
    assert isinstance(method_kind("tracin"), TracInKind)


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(BuildError, match="unknown method 'tracincp'; expected one of tracin"):
        method_kind("tracincp")
