"""Events as TensorBoard itself reads them back."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gradscope.cli.main import main
from gradscope.report import write_events
from tests.bad_requests import good_files
from tests.report.examples import EXAMPLES, inspection


def read(folder: Path) -> EventAccumulator:
    """All events of a folder."""
    return EventAccumulator(str(folder), size_guidance={"scalars": 0, "histograms": 0}).Reload()


@pytest.mark.parametrize("name", ["saturated", "recurrent", "weights-only", "broken"])
def test_what_was_measured_is_read_back_and_nothing_else(name: str, tmp_path: Path):
    found = inspection(EXAMPLES[name]())
    write_events(found, str(tmp_path))
    events, m = read(tmp_path), found.measurements
    scalars = {tag: events.Scalars(tag)[0].value for tag in events.Tags()["scalars"]}
    assert all(map(math.isfinite, scalars.values()))
    expected = {f"weight-rms/{p.name}": p.weight.rms for p in m.parameters}
    for p in m.parameters:
        for kind, stats in (("gradient", p.gradient), ("loss-gradient", p.loss_gradient)):
            expected[f"{kind}-rms/{p.name}"] = stats and stats.rms
            expected[f"{kind}-norm/{p.name}"] = stats and stats.norm
    expected["saturated/hidden"] = m.hidden_saturation
    expected |= {f"saturated/{s.id}": s.saturated_fraction for s in m.sites}
    if m.ledger is not None:
        expected |= {"ledger/total": m.ledger.total, "ledger/median": m.ledger.median}
        expected |= {f"decades-left/{e.label}": e.cumulative for e in m.ledger.entries}
    if m.skill is not None:
        expected |= {"score/skill": m.skill.value, "score/loss": m.skill.loss}
        expected["score/accuracy"] = m.skill.accuracy
    known = {tag: v for tag, v in expected.items() if v is not None and math.isfinite(v)}
    assert scalars == pytest.approx(known, rel=1e-6)
    assert scalars
    assert events.Scalars("weight-rms/" + m.parameters[0].name)[0].wall_time > 1e9  # not 1970


def test_histograms_keep_their_bins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    good_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["inspect", "model.pt", "--data", "data.npz", "--tensorboard", "runs/one"]) == 0
    events = read(tmp_path / "runs/one")
    import gradscope

    m = gradscope.inspect("model.pt", "data.npz").measurements
    for p in m.parameters:
        weights = events.Histograms(f"weight/{p.name}")[0].histogram_value
        assert weights.num == p.numel
        assert (weights.min, weights.max) == (p.weight.histogram.low, p.weight.histogram.high)
        assert tuple(weights.bucket)[1:] == p.weight.histogram.counts
        for kind, stats in (("gradient", p.gradient), ("loss-gradient", p.loss_gradient)):
            sizes = events.Histograms(f"log10-{kind}/{p.name}")[0].histogram_value
            assert tuple(sizes.bucket)[1:] == stats.octaves.counts
            assert sizes.min == pytest.approx(stats.octaves.lowest * math.log10(2))
            # The largest magnitude lies in the last bin.
            assert sizes.bucket_limit[-2] <= math.log10(stats.max_abs) < sizes.bucket_limit[-1]


@pytest.mark.parametrize("folder", ["data.npz", "data.npz/runs", "/proc/runs"])
def test_a_folder_that_cannot_be_is_one_line(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    good_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["inspect", "model.pt", "--tensorboard", folder]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "--tensorboard" in err


def test_a_missing_package_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "gradscope.cli.events.find_spec", lambda name: None if name == "tensorboard" else find(name)
    )
    assert main(["inspect", "model.pt", "--tensorboard", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "pip install 'gradscope-cli[tensorboard]'" in err
