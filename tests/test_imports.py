"""The direction of imports and the gates of dependencies, read from the source; nothing but the last tests is run.

A module imports only from its own layer or from one below it, modules form no cycle, and each outside dependency
comes in through one gate.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

LAYERS = {
    "things": (
        *(
            "indexer.errors",
            "indexer.atomic",
            "indexer.codecs",
            "indexer.losses",
            "indexer.task",
            "indexer.checkpoints",
            "indexer.index",
        ),
    ),
    "mathematics": ("indexer.gradients", "indexer.projection"),
    "methods": ("indexer.methods",),
    "pipelines": ("indexer.building", "indexer.editing", "indexer.ask", "indexer.evaluate", "indexer.record"),
    "public names": ("indexer",),
    "surfaces": ("indexer.recipes", "indexer.cli"),
    "service": ("service",),
}
GATES = {
    "faiss": ("indexer.index.search",),
    "sqlite3": ("indexer.index.examples", "indexer.index.segments"),
    "PIL": ("indexer.codecs",),
    "matplotlib": ("indexer.evaluate",),
    "transformers": ("indexer.record.huggingface",),
    "lightning": ("indexer.record.lightning",),
    "fastapi": ("service",),
    "starlette": ("service",),
    "uvicorn": ("service",),
    "importlib": ("indexer.task", "service.cli"),  # whatever is imported by a computed name is imported here
}
# what routes may take of indexer
VALUES = {"Filter", "GivenExample", "Hit", "KnownExample", "Preview", "Question", "Ranking"}
# optional dependencies are imported in the function that uses them, or at the top of the one module that is for them
EXTRAS = {"matplotlib": None, "transformers": "indexer.record.huggingface", "lightning": "indexer.record.lightning"}
VECTOR_FILES = {"memmap", "fromfile", "tofile", "open_memmap"}
VECTOR_GATE = "indexer.index.store"
TORCH_GATE = "service.engine"

Sources = Mapping[str, str]


@dataclass(frozen=True)
class Import:
    """One imported name: ``from module import name``, or ``import module`` with an empty name."""

    module: str
    name: str
    inside_function: bool

    @property
    def package(self) -> str:
        return self.module.partition(".")[0]


def read_sources() -> dict[str, str]:
    """Return {dotted name: source} of both packages."""
    files = sorted(path for package in ("indexer", "service") for path in (ROOT / package).rglob("*.py"))
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path.read_text()
        for path in files
    }


def imports(source: str) -> Iterator[Import]:
    """Yield every import of a module, also those inside functions and conditions."""
    tree = ast.parse(source)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    hidden = {id(inner) for function in functions for inner in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, "", id(node) in hidden) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from (Import(module, alias.name, id(node) in hidden) for alias in node.names)


def within(module: str, places: tuple[str, ...]) -> bool:
    return any(module == place or module.startswith(f"{place}.") for place in places)


def layer_of(module: str) -> int:
    """Return the number of a module's layer; the longest name decides."""
    found = [
        (len(place), i) for i, places in enumerate(LAYERS.values()) for place in places if within(module, (place,))
    ]
    assert not (module.startswith("indexer.") and max(found)[0] == len("indexer")), f"{module} is in no layer"
    return max(found)[1]


def dependencies(module: str, sources: Sources) -> set[str]:
    """Return the modules of ours that a module imports; ``from package import module`` means the module."""
    ours = [found for found in imports(sources[module]) if found.package in ("indexer", "service")]
    return {full if (full := f"{found.module}.{found.name}") in sources else found.module for found in ours}


def upward(sources: Sources) -> list[str]:
    names = list(LAYERS)
    return [
        f"{module} ({names[layer_of(module)]}) imports {other} ({names[layer_of(other)]})"
        for module in sources
        for other in sorted(dependencies(module, sources))
        if layer_of(other) > layer_of(module)
    ]


def cycle(sources: Sources) -> list[str]:
    """Return the modules of one cycle, or none."""
    try:
        TopologicalSorter({module: dependencies(module, sources) for module in sources}).prepare()
    except CycleError as exc:
        return list(exc.args[1])
    return []


def outside_gates(sources: Sources) -> list[str]:
    return [
        f"{module} imports {found.module}"
        for module, source in sources.items()
        for found in imports(source)
        if found.package in GATES
        and not within(module, GATES[found.package])
        and found.module not in ("importlib.resources", "importlib.metadata")
    ]


def vectors_outside_store(sources: Sources) -> list[str]:
    """Return modules that map or type vector files themselves."""

    def touches(node: ast.AST) -> bool:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "dtype":
            return any(isinstance(argument, ast.Constant) and argument.value == "<f4" for argument in node.args)
        return isinstance(node, ast.Attribute) and node.attr in VECTOR_FILES

    return [
        module
        for module, source in sources.items()
        if module != VECTOR_GATE and any(map(touches, ast.walk(ast.parse(source))))
    ]


def torch_in_service(sources: Sources) -> list[str]:
    """Return imports that lead from the service to torch past its gate: torch, Ask, or what opens an index."""
    return [
        f"{module} imports {found.module} {found.name}".rstrip()
        for module, source in sources.items()
        if module.startswith("service") and module != TORCH_GATE
        for found in imports(source)
        if found.package == "torch"
        or within(found.module, ("indexer.ask",))
        or (found.module == "indexer" and found.name not in VALUES and f"indexer.{found.name}" not in sources)
        or found.name == "ask"
    ]


def misplaced(sources: Sources) -> list[str]:
    """Return imports inside functions, and extras that are imported outside of one, which would make them required.

    An extra that has a module of its own is imported at its top.
    """
    return [
        f"{module} imports {found.module} {'in' if found.inside_function else 'outside of'} a function"
        for module, source in sources.items()
        for found in imports(source)
        if found.inside_function != (found.package in EXTRAS and EXTRAS[found.package] != module)
    ]


def modules_of_extras(sources: Sources) -> list[str]:
    """Return imports of a module that is for an extra: whoever imports it needs the extra."""
    return [
        f"{module} imports {other}, which needs {extra}"
        for module in sources
        for extra, other in EXTRAS.items()
        if other in dependencies(module, sources)
    ]


def relative_imports(sources: Sources) -> list[str]:
    return [module for module, source in sources.items() if any(i.module.startswith(".") for i in imports(source))]


CHECKS = (
    upward,
    cycle,
    outside_gates,
    vectors_outside_store,
    torch_in_service,
    misplaced,
    modules_of_extras,
    relative_imports,
)
OFFENCES = {
    upward: [
        {"indexer.index.store": "from indexer.methods import tracin", "indexer.methods.tracin": ""},
        {"indexer.gradients.probe": "from indexer import Task"},
        {"indexer.task": "if True:\n    import service.app", "service.app": ""},
    ],
    cycle: [
        {"indexer.task": "from indexer import codecs", "indexer.codecs": "import indexer.task"},
        {"indexer.ask.a": "import indexer.ask.b", "indexer.ask.b": "def f():\n    from indexer.ask import a"},
    ],
    outside_gates: [
        {"indexer.ask.ask": "import faiss"},
        {"indexer.index.store": "import sqlite3"},
        {"indexer.cli.build": "from uvicorn.config import Config"},
        {"indexer.recipes.mnist": "def draw():\n    import matplotlib.pyplot"},
        {"indexer.ask.ask": "from importlib import import_module"},
        {"indexer.record.recorder": "def f():\n    from transformers import TrainerCallback"},
        {"indexer.record.huggingface": "import lightning.pytorch"},
    ],
    vectors_outside_store: [
        {"indexer.ask.ask": "import numpy as np\nrows = np.memmap('x')"},
        {"indexer.ask.ask": "import numpy as np\nD = np.dtype('<f4')"},
    ],
    torch_in_service: [
        {"service.routes.query": "import torch"},
        {"service.routes.query": "from indexer import Ask"},
        {"service.app": "from indexer.ask.opening import open_index"},
        {"service.app": "from indexer import ask", "indexer.ask": ""},
    ],
    misplaced: [
        {"indexer.task": "def f():\n    import json"},
        {"service.app": "class A:\n    def f(self):\n        import re"},
        {"indexer.evaluate.label_noise": "import matplotlib"},
        {"indexer.record.recorder": "from transformers import TrainerCallback"},
        {"indexer.record.huggingface": "def f():\n    import transformers"},
        {"indexer.record.lightning": "import transformers"},
    ],
    modules_of_extras: [
        {"indexer": "from indexer.record import huggingface", "indexer.record.huggingface": ""},
        {"indexer.cli.app": "def f():\n    import indexer.record.lightning", "indexer.record.lightning": ""},
    ],
    relative_imports: [{"indexer.task": "from . import codecs"}, {"service.app": "from .engine import Engine"}],
}


@pytest.mark.parametrize("check", CHECKS)
def test_sources_keep_the_rules(check: object) -> None:
    assert callable(check)
    assert check(read_sources()) == []


@pytest.mark.parametrize("check", CHECKS)
def test_each_check_finds_an_offence(check: object) -> None:
    assert callable(check)
    for sources in OFFENCES[check]:
        assert check(sources), sources


def test_what_is_allowed_is_not_reported() -> None:
    fine = {
        "indexer.evaluate.plot": "def draw():\n    from matplotlib.figure import Figure",
        "indexer.record.huggingface": "try:\n    from transformers import Trainer\nexcept ImportError:\n    raise",
        "indexer.record.lightning": "from lightning.pytorch import Callback",
        "indexer.errors": "",
        "service.errors": "from indexer import errors\nfrom indexer import Question",
        "indexer.recipes.mnist": "from importlib.resources import files",
        TORCH_GATE: "import torch\nfrom indexer import Ask",
        VECTOR_GATE: "import numpy as np\nrows = np.memmap('x', np.dtype('<f4'))",
    }
    assert [check(fine) for check in CHECKS] == [[] for _ in CHECKS]


def test_a_new_package_needs_a_layer() -> None:
    with pytest.raises(AssertionError, match=r"indexer\.watch is in no layer"):
        upward({"indexer.watch": "import indexer.task", "indexer.task": ""})


@pytest.mark.parametrize(
    ("module", "kept_out"),
    [("indexer", ("fastapi", "starlette", "uvicorn", *EXTRAS)), ("service.cli", ("torch", "numpy", "indexer"))],
)
def test_importing_a_package_leaves_out_what_it_does_not_need(module: str, kept_out: tuple[str, ...]) -> None:
    program = f"import sys, {module}; print(*sorted(set({kept_out!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
