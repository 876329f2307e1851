"""``--dtype``: measured in that type, close to float32 where the type allows, else said so."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from gradscope.cli.main import main
from gradscope.config import DataSettings, ProbeSettings, Settings
from gradscope.diagnosis import Inspection
from gradscope.errors import OptionError
from gradscope.loading import in_precision
from gradscope.model import LoadedModel
from gradscope.pipeline import inspect
from gradscope.probe.gradients import gradient_stats

SAMPLES = Path(__file__).resolve().parent.parent / "sample_models"
MODEL, DATA = SAMPLES / "paper_cnn.pt", SAMPLES / "digits.npz"


def inspected(dtype: str | None) -> Inspection:
    data = DataSettings(data=str(DATA), samples=128)
    return inspect(Settings(str(MODEL), data=data, probe=ProbeSettings(dtype=dtype)))


@pytest.fixture(scope="module")
def plain() -> Inspection:
    return inspected(None)


@pytest.mark.parametrize(
    ("name", "called", "least", "most"),
    # A unit roundoff of 2**-9 (bf16) and 2**-12 (fp16), some times over in eight layers.
    [("bf16", "bfloat16", 1e-5, 0.04), ("fp16", "float16", 1e-6, 0.005),
     ("float64", "float64", 0.0, 1e-4)],
)  # fmt: skip
def test_it_agrees_with_float32_as_the_type_allows(
    name: str, called: str, least: float, most: float, plain: Inspection
) -> None:
    before = hashlib.sha256(MODEL.read_bytes()).digest()
    found = inspected(name).measurements
    assert hashlib.sha256(MODEL.read_bytes()).digest() == before
    assert found.run.dtype == called
    assert {p.dtype for p in found.parameters} == {called}
    assert any(f"measured in {called}; the file holds float32" in n for n in found.model.notes)
    pairs = list(zip(found.parameters, plain.measurements.parameters, strict=True))
    errors = [
        abs(mine.gradient.norm / theirs.gradient.norm - 1)
        for mine, theirs in pairs
        if mine.gradient and theirs.gradient and mine.gradient.norm and theirs.gradient.norm
    ]
    assert len(errors) == len(pairs)
    assert least < float(np.median(errors)) < most
    assert max(errors) < 10 * most
    assert found.skill is not None
    assert plain.measurements.skill is not None
    assert found.skill.value == pytest.approx(plain.measurements.skill.value, abs=most)


def test_what_a_type_loses_is_not_measured_in_it() -> None:
    gradient = torch.tensor([1.0, 1e-9, 0.0, 1e-42])
    wide, half, brain = (gradient_stats(gradient.to(t)) for t in (
        torch.float32, torch.float16, torch.bfloat16))  # fmt: skip
    assert (wide.fp16_underflow_fraction, wide.bf16_underflow_fraction) == (0.5, 0.25)
    assert half.fp16_underflow_fraction is None
    assert brain.bf16_underflow_fraction is None
    assert brain.fp16_underflow_fraction == 0.25  # of two that float32 holds


def test_what_no_longer_fits_is_said() -> None:
    layer = torch.nn.Linear(2, 1)
    torch.nn.init.constant_(layer.weight, 1e5)
    found = in_precision(LoadedModel("m.pt", "PyTorch module", layer), "fp16")
    assert found.notes[-1] == "weight exceeds float16: infinite here, not in the file"


def test_a_model_of_that_type_is_left_alone() -> None:
    model = LoadedModel("m.pt", "PyTorch module", torch.nn.Linear(2, 1))
    assert in_precision(model, "float32") is model


MIXED = """
import torch
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.a = torch.nn.Linear(64, 10)
    def forward(self, x):
        return torch.tanh(self.a(x)).float() @ torch.eye(10).to(self.a.weight)
"""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([str(MODEL), "--dtype", "int8"], "there is no type 'int8'"),
        ([str(SAMPLES / "deep_tanh.onnx"), "--dtype", "bf16"], "states the type of every value"),
        ([str(MODEL), "--dtype", "bf16", "--trial", "5"], "trains in the type of the file"),
    ],
)
def test_refused_in_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", *arguments, "--data", str(DATA)]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert said in err


def test_code_that_mixes_types_fails_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, state = tmp_path / "net.py", tmp_path / "state.pt"
    code.write_text(MIXED)
    torch.save({f"a.{k}": v for k, v in torch.nn.Linear(64, 10).state_dict().items()}, state)
    given = ["inspect", str(state), "--arch", f"{code}:Net", "--data", str(DATA), "--samples", "32"]
    assert main(given) == 0
    capsys.readouterr()
    assert main([*given, "--dtype", "bf16"]) in (2, 3)
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "if --dtype is given, leave it out" in err


def test_complex_numbers_are_refused() -> None:
    layer = torch.nn.Linear(2, 1, dtype=torch.complex64)
    with pytest.raises(OptionError, match="complex"):
        in_precision(LoadedModel("m.pt", "PyTorch module", layer), "bf16")
