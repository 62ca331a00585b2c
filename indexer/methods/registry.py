"""The methods by name. A manifest says the name; nothing else decides which code reads an index."""

from indexer.errors import BuildError
from indexer.methods.method import MethodKind
from indexer.methods.tracin_kind import TracInKind

METHODS: dict[str, MethodKind] = {"tracin": TracInKind()}


def method_kind(name: str) -> MethodKind:
    """Return the method of that name.

    Raises:
        BuildError: there is none.
    """
    if name not in METHODS:
        raise BuildError(f"unknown method {name!r}; expected one of {', '.join(METHODS)}")
    return METHODS[name]
