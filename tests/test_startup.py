"""What a command imports: nothing that it does not use, however long that would take to load."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SAMPLES = Path(__file__).resolve().parent.parent / "sample_models"
UNUSED = {
    "onnx", "onnxruntime", "matplotlib", "plotly", "pyarrow", "pandas", "tensorboard", "sklearn",
    "scipy", "sympy", "lightning", "torch._dynamo", "gradscope.group",
}  # fmt: skip
NO_TENSORS = {"torch", "numpy", "safetensors"}
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
        (["--help"], UNUSED | NO_TENSORS),
        (["rule", "GS101"], UNUSED | NO_TENSORS),
        (["inspect", str(SAMPLES / "deep_tanh.pt"), "--data", str(SAMPLES / "digits.npz")], UNUSED),
    ],
)
def test_only_what_is_used_is_imported(arguments: list[str], unwanted: set[str]) -> None:
    command = [sys.executable, "-c", _ASK, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "gradscope.cli.main" in done.stderr.split()
    assert not unwanted & set(done.stderr.split())
