"""The sample models' ONNX twins: the same reports as the torch models that they were made of."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gradscope.config import DataSettings, LoadSettings, ProbeSettings, Settings
from gradscope.diagnosis import Inspection
from gradscope.pipeline import inspect
from tests.loading.onnx.exported import quiet

SAMPLES = Path(__file__).parents[3] / "sample_models"
sys.path.insert(0, str(SAMPLES))
import build  # noqa: E402

ARCHITECTURES = {"lstm_state.pt": f"{SAMPLES / 'architectures.py'}:lstm_classifier"}


def _report(file: str, architecture: str | None = None) -> Inspection:
    data = DataSettings(data=str(SAMPLES / "digits.npz"), val=str(SAMPLES / "digits_val.npz"),
                        samples=128)  # fmt: skip
    load = LoadSettings(arch=architecture)
    probe = ProbeSettings(draws=2)
    return inspect(Settings(str(SAMPLES / file), load=load, data=data, probe=probe))


@pytest.fixture(params=build.TWINS, scope="module")
def reports(request: pytest.FixtureRequest) -> tuple[Inspection, Inspection]:
    """(of the torch model, of its twin)."""
    source = build.TWINS[request.param]
    return _report(source, ARCHITECTURES.get(source)), _report(request.param)


def test_ledger(reports: tuple[Inspection, Inspection]) -> None:
    one, two = (r.measurements.ledger for r in reports)
    assert (one is None) == (two is None)
    if one is None or two is None:
        return
    for name in ("total", "median", "activation", "slope", "weight"):
        assert getattr(two, name) == pytest.approx(getattr(one, name), abs=1e-4), name


def test_saturation(reports: tuple[Inspection, Inspection]) -> None:
    one, two = (r.measurements.sites for r in reports)
    assert [(s.kind, s.role, s.gate) for s in two] == [(s.kind, s.role, s.gate) for s in one]
    for a, b in zip(one, two, strict=True):
        assert b.saturated_fraction == pytest.approx(a.saturated_fraction, abs=1e-4), b.id
        assert b.units == a.units, b.id


def test_verdict(reports: tuple[Inspection, Inspection]) -> None:
    one, two = (r.diagnosis for r in reports)
    assert two.verdict is one.verdict
    assert two.causes == one.causes


def test_files_are_what_the_script_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnx

    for source in set(build.TWINS.values()):
        (tmp_path / source).symlink_to(SAMPLES / source)
    monkeypatch.setattr(build, "HERE", tmp_path)
    with quiet():
        build.write_twins()
    for file in build.TWINS:
        one, two = (onnx.load(folder / file) for folder in (SAMPLES, tmp_path))
        assert one.graph == two.graph, file
