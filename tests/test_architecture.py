"""Who may import whom, read from the source: imports inside functions count as well."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import gradscope

PACKAGE = Path(gradscope.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

# Rooms that each room may import from; "data" is what all of them may. A room may use itself.
DATA = {"measurements", "findings", "errors", "config", "progress", "optimisers"}
MAY_IMPORT = {
    "__init__": {"api"},
    "__main__": {"start"},
    "start": {"cli"},
    "errors": set(),
    "config": set(),
    "progress": set(),
    "optimisers": set(),
    "findings": set(),
    "measurements": {"findings"},
    "model": DATA,
    "snapshot": set(),
    "cutting": set(),
    "fusion": set(),
    "files": {"errors"},
    "ranks": {"errors"},
    "group": {"errors", "ranks", "roll_call"},
    "roll_call": set(),
    "launcher": set(),
    "usercode": {"errors"},
    "attribution": DATA,
    "typical": DATA | {"attribution"},
    "commandline": DATA,
    "places": DATA,
    "settings_file": DATA,
    "run_file": DATA,
    "counterfactual": DATA,
    "judgement": DATA | {"attribution"},
    "diagnosis": DATA | {"attribution", "counterfactual", "judgement"},
    "second_look": DATA | {"diagnosis", "attribution", "counterfactual", "judgement"},
    "checking": DATA | {"diagnosis"},
    "comparing": DATA | {"diagnosis", "checking"},
    "loading": DATA | {"model", "snapshot", "fusion", "cutting", "files", "usercode"},
    "probe": DATA | {"model", "snapshot", "fusion", "cutting", "files", "usercode", "ranks"},
    "treatment": DATA | {"diagnosis"},
    "repair": DATA
    | {"model", "snapshot", "fusion", "files", "probe", "diagnosis", "counterfactual", "treatment"}
    | {"ranks"},
    "rules": DATA | {"attribution", "places", "typical"},
    "report": DATA
    | {"attribution", "judgement", "diagnosis", "counterfactual", "treatment", "commandline"}
    | {"checking", "comparing", "run_file", "rules"},
    "pipeline": DATA
    | {"model", "files", "loading", "probe", "repair", "rules", "diagnosis", "treatment"}
    | {"commandline", "ranks", "fixing"},
    "several": DATA
    | {"pipeline", "checking", "comparing", "commandline", "diagnosis", "ranks", "rules"},
    "fixing": DATA
    | {
        "second_look",
        "pipeline",
        "model",
        "files",
        "ranks",
        "loading",
        "repair",
        "diagnosis",
        "treatment",
    }
    | {"unproven", "second_look"},
    "unproven": set(),
    "testing": DATA | {"api", "checking", "report", "rules", "settings_file"},
    "pytest_plugin": {"testing"},
    "callbacks": DATA | {"api"},
    "lightning": DATA | {"api", "callbacks"},
    "api": DATA | {"pipeline", "report", "diagnosis", "settings_file", "model"},
    "cli": DATA
    | {"commandline"}
    | {
        "checking",
        "comparing",
        "pipeline",
        "several",
        "report",
        "files",
        "diagnosis",
        "treatment",
        "settings_file",
        "run_file",
        "rules",
        "ranks",
        "group",
        "roll_call",
        "launcher",
    },
}

# What only some may import, at the top or inside a function.
TENSORS = {"torch", "safetensors", "numpy"}
TORCH = {
    "api", "loading", "probe", "repair", "pipeline", "fixing", "model", "snapshot", "fusion",
    "cutting", "ranks", "group", "roll_call", "launcher",
}  # fmt: skip
RESTRICTED = {
    **dict.fromkeys(TENSORS, TORCH),
    "pyarrow": {"loading"},
    "accelerate": {"loading/spread"},
    "onnx": {"loading/onnx"},
    "google": {"loading/onnx"},  # protobuf, which onnx brings along: its errors
    "onnxruntime": {"loading/onnx"},
    "typer": {"cli"},
    "click": set[str](),
    "jinja2": {"report/html"},
    "plotly": {"report/html"},  # for its plotly.js alone
    "tensorboard": {"report/tensorboard"},
    "rich": {"cli", "report/terminal_page"},
    "sklearn": set[str](),
    "pytest": {"pytest_plugin"},
    "lightning": {"lightning"},
    "pickle": {"loading"},
    "pickletools": {"loading"},
}


def place(file: Path) -> str:
    """``loading/pickle_scan``, without suffix, relative to the package."""
    return file.relative_to(PACKAGE).with_suffix("").as_posix()


def room(file: Path) -> str:
    """The first part of a file's place."""
    return place(file).split("/")[0]


def imports(file: Path) -> Iterator[tuple[str, int, bool]]:
    """(module, line, whether it is executed when the file is imported)."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    deferred = {id(n) for f in ast.walk(tree) if _is_deferred(f) for n in ast.walk(f)}
    for node in ast.walk(tree):
        at_import = id(node) not in deferred
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno, at_import
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: relative import"
            yield node.module or "", node.lineno, at_import
            if node.module == "gradscope":
                for alias in node.names:
                    yield f"gradscope.{alias.name}", node.lineno, at_import


def _is_deferred(node: ast.AST) -> bool:
    """Functions, and blocks for type checkers only."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return True
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


@pytest.mark.parametrize("file", FILES, ids=place)
def test_directions(file: Path) -> None:
    allowed = MAY_IMPORT[room(file)] | {room(file)}
    for module, line, _ in imports(file):
        parts = module.split(".")
        if parts[0] == "gradscope" and len(parts) > 1 and parts[1] != "__version__":
            assert parts[1] in allowed, f"{place(file)}:{line} imports {module}"


@pytest.mark.parametrize("file", FILES, ids=place)
def test_restricted_libraries(file: Path) -> None:
    here = place(file)
    for module, line, _ in imports(file):
        rooms = RESTRICTED.get(module.split(".")[0])
        if rooms is not None:
            assert any(here == r or here.startswith(f"{r}/") for r in rooms), (
                f"{here}:{line} imports {module}"
            )


@pytest.mark.parametrize("file", FILES, ids=place)
def test_known_libraries_only(file: Path) -> None:
    """A new dependency is a decision: it belongs into pyproject.toml with its reason."""
    known = sys.stdlib_module_names | set(RESTRICTED) | {"gradscope"}
    for module, line, _ in imports(file):
        assert module.split(".")[0] in known, f"{place(file)}:{line} imports {module}"


@pytest.mark.parametrize("name", ["pipeline", "model", "api"])
def test_torch_is_imported_late(name: str) -> None:
    """The command line imports the first two; torch only when there is something to examine."""
    for module, line, at_import in imports(PACKAGE / f"{name}.py"):
        if module.split(".")[0] in TENSORS or module.startswith(
            ("gradscope.load", "gradscope.pro")
        ):
            assert not at_import or module == "gradscope.progress", f"{name}:{line} {module}"


def test_every_room_is_listed() -> None:
    assert {room(f) for f in FILES} <= set(MAY_IMPORT)


def test_probe_knows_no_threshold() -> None:
    """Findings and severities are for rules; the probe only says what it skipped."""
    for file in (f for f in FILES if room(f) == "probe"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module == "gradscope.findings":
                assert {a.name for a in node.names} <= {"Skipped"}, place(file)


@pytest.mark.parametrize("file", FILES, ids=place)
def test_no_silent_except(file: Path) -> None:
    """``except Exception: pass`` hides bugs; so does a bare except."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"{place(file)}:{node.lineno}: bare except"
            broad = ast.unparse(node.type) in {"Exception", "BaseException"}
            silent = all(isinstance(s, ast.Pass | ast.Continue) for s in node.body)
            assert not (broad and silent), f"{place(file)}:{node.lineno}: silent except"
