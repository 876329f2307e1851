"""What a command imports: nothing that it does not use, however long that would take to load."""

from __future__ import annotations

import inspect
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from gradscope.cli.commands import COMMANDS, LazyGroup
from gradscope.cli.main import main

SAMPLES = Path(__file__).resolve().parent.parent / "sample_models"
UNUSED = {
    "onnx", "onnxruntime", "matplotlib", "plotly", "pyarrow", "pandas", "tensorboard", "sklearn",
    "scipy", "sympy", "lightning", "torch._dynamo", "gradscope.group",
}  # fmt: skip
NO_TENSORS = {"torch", "numpy", "safetensors"}
NO_COMMAND = {
    "rich", "pydantic", "hashlib", "tempfile", "tomllib", "gradscope.config",
    "gradscope.settings_file", "gradscope.findings", "gradscope.report", "gradscope.rules",
    *(command.module for command in COMMANDS.values()),
}  # fmt: skip
_ASK = """
import sys
from gradscope.cli.main import main
status = main(sys.argv[1:])
print("\\n".join(sys.modules), file=sys.stderr)
sys.exit(status)
"""


@pytest.mark.parametrize(
    ("arguments", "unwanted"),
    [
        (["--help"], UNUSED | NO_TENSORS | NO_COMMAND),
        (["--version"], UNUSED | NO_TENSORS | NO_COMMAND),
        (["rule", "GS101"], UNUSED | NO_TENSORS),
        (["inspect", str(SAMPLES / "deep_tanh.pt"), "--data", str(SAMPLES / "digits.npz")], UNUSED),
    ],
)
def test_only_what_is_used_is_imported(arguments: list[str], unwanted: set[str]) -> None:
    command = [sys.executable, "-c", _ASK, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "gradscope.cli.main" in done.stderr.split()
    assert not unwanted & set(done.stderr.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_says_what_the_command_says(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    function = getattr(import_module(COMMANDS[name].module), name)
    assert (inspect.getdoc(function) or "").splitlines()[0] == COMMANDS[name].help
    assert main(["--help"]) == 0
    assert COMMANDS[name].help in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_names_all_its_options(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    function = getattr(import_module(COMMANDS[name].module), name)
    monkeypatch.setenv("COLUMNS", "200")
    assert main([name, "--help"]) == 0
    shown = capsys.readouterr().out
    built = LazyGroup().get_command(None, name).params
    own = [p for p in inspect.signature(function).parameters if p != "context"]
    assert [p.name for p in built] == own
    missing = [
        p for p in built if not any(o in shown for o in (*p.opts, p.metavar or p.name.upper()))
    ]
    assert not missing
    assert f"Usage: gradscope {name}" in shown


def test_a_misspelt_command_is_guessed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["comapre"]) == 2
    assert "Did you mean 'compare'?" in capsys.readouterr().err
