"""Every module has its test file at the mirrored path, and every file stays short enough to be read."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LONGEST = 300  # lines; a file that wants more holds two subjects


def mirrored(module: Path) -> Path:
    """a/b.py -> tests/a/test_b.py; a package's own functions, a/__init__.py -> tests/test_a.py, beside the package."""
    named = module.parent if module.name == "__init__.py" else module
    return Path("tests") / named.parent / f"test_{named.stem}.py"


def needs_tests(module: Path, source: str) -> bool:
    """A package's ``__init__.py`` with a docstring, imports and constants alone needs none."""
    defined = any(
        isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) for node in ast.parse(source).body
    )
    return module.name != "__init__.py" or defined


def sources(*packages: str) -> dict[Path, str]:
    files = (path for package in packages for path in sorted((ROOT / package).rglob("*.py")))
    return {path.relative_to(ROOT): path.read_text() for path in files}


def without_tests(modules: dict[Path, str], present: set[Path]) -> list[str]:
    return [
        str(path) for path, source in modules.items() if needs_tests(path, source) and mirrored(path) not in present
    ]


def too_long(files: dict[Path, str]) -> list[str]:
    return [str(path) for path, source in files.items() if len(source.splitlines()) > LONGEST]


def test_every_module_has_its_test_file() -> None:
    assert without_tests(sources("indexer", "service"), set(sources("tests"))) == []


def test_no_file_is_too_long() -> None:
    assert too_long(sources("indexer", "service", "tests", "benchmarks")) == []


def test_no_module_of_the_pages_is_too_long() -> None:
    modules = {path: path.read_text() for path in (ROOT / "service" / "web").glob("*.js")}
    assert len(modules) > 3 and too_long(modules) == []


@pytest.mark.parametrize(
    ("module", "test"),
    [
        ("indexer/task.py", "tests/indexer/test_task.py"),
        ("indexer/index/search/flat.py", "tests/indexer/index/search/test_flat.py"),
        ("service/routes/__init__.py", "tests/service/test_routes.py"),
    ],
)
def test_the_mirrored_path(module: str, test: str) -> None:
    assert mirrored(Path(module)) == Path(test)


def test_the_checks_find_offences() -> None:
    package, module = Path("indexer/ask/__init__.py"), Path("indexer/ask/ask.py")
    assert without_tests({package: '"""Asking."""', module: ""}, set()) == [str(module)]
    assert without_tests({package: "def ask() -> None: ..."}, set()) == [str(package)]
    assert without_tests({module: ""}, {Path("tests/indexer/ask/test_ask.py")}) == []
    assert too_long({module: "x\n" * (LONGEST + 1), package: "x\n" * LONGEST}) == [str(module)]
