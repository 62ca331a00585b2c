"""The tree of errors is the one drawn at the head of the module."""

import inspect

from indexer import errors


def drawn_tree() -> dict[str, str]:
    """Return {error: its parent} as the docstring draws it, by indentation."""
    parents: dict[str, str] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        name = next((word for word in line.split() if word.endswith("Error")), None)
        if name is None:
            continue
        depth = line.index(name) // 4
        path[depth:] = [name]
        parents[name] = path[depth - 1] if depth else "Exception"
    return parents


def test_the_drawn_tree_is_the_tree() -> None:
    defined = {name: cls for name, cls in inspect.getmembers(errors, inspect.isclass)}
    assert {name: cls.__mro__[1].__name__ for name, cls in defined.items()} == drawn_tree()


def test_everything_can_be_caught_by_the_root() -> None:
    for _, cls in inspect.getmembers(errors, inspect.isclass):
        assert issubclass(cls, errors.ProponentError)
