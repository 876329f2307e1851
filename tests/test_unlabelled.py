"""``gradscope fix`` without labels: what keeps the outputs, and is judged better, is written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from gradscope.cli.main import main

SAMPLES = Path(__file__).parent.parent / "sample_models"


@pytest.fixture(scope="module")
def here(tmp_path_factory) -> Path:
    """Digits without labels, and a healthy model of which 5 % of a matrix became NaN."""
    folder = tmp_path_factory.mktemp("unlabelled")
    np.savez(folder / "x.npz", x=np.load(SAMPLES / "digits.npz")["x"][:200])
    module = torch.load(SAMPLES / "healthy_tanh.pt", weights_only=False)
    torch.manual_seed(0)
    with torch.no_grad():
        module[2].weight[torch.rand_like(module[2].weight) < 0.05] = float("nan")
    torch.save(module, folder / "nan.pt")
    return folder


def fixed(here: Path, capsys, model: Path, out: Path, *options: str) -> tuple[int, dict]:
    arguments = [str(model), "--data", str(here / "x.npz"), "--out", str(out), "--format", "json"]
    status = main(["fix", *arguments, *options])
    return status, json.loads(capsys.readouterr().out)


def test_nothing_could_be_kept_of_outputs_that_are_not_finite(here, capsys, tmp_path):
    out = tmp_path / "f.pt"
    status, report = fixed(here, capsys, here / "nan.pt", out)
    assert (status, report["outcome"], report["chosen"]) == (0, "improved", "revive")
    assert report["verdict"] == {"before": "unhealthy", "after": "healthy"}
    assert "no output was finite before" in report["stages"][-1]["said"][-1]
    x = torch.from_numpy(np.load(here / "x.npz")["x"]).float()
    assert bool(torch.load(out, weights_only=False)(x).isfinite().all())
    assert not Path(f"{out}.run").exists()  # nothing was trained


def test_what_moves_the_outputs_is_not_written(here, capsys, tmp_path):
    before = sorted(tmp_path.iterdir())
    model = SAMPLES / "saturated_tanh.pt"
    status, report = fixed(here, capsys, model, tmp_path / "f.pt")
    assert (status, report["outcome"], report["written"]) == (1, "not improved", None)
    assert "(--max-drift)" in report["summary"]
    assert all(s["drift"] is None or s["drift"] > 0.1 for s in report["stages"])
    assert [p["remedy"] for p in report["plan"]] == ["kappa-refit", "kappa"]  # no restart
    assert "restart would help only with training. Labels in --data" in report["summary"]
    assert sorted(tmp_path.iterdir()) == before


def test_the_limit_is_the_users(here, capsys, tmp_path):
    out = tmp_path / "f.pt"
    status, report = fixed(
        here, capsys, SAMPLES / "saturated_tanh.pt", out, "--max-drift", "1.5"
    )  # fmt: skip
    assert (status, report["outcome"]) == (0, "improved")
    drift = report["stages"][-1]["drift"]
    assert 0.1 < drift <= 1.5
    old, new = (torch.load(p, weights_only=False) for p in (SAMPLES / "saturated_tanh.pt", out))
    x = torch.from_numpy(np.load(here / "x.npz")["x"]).float()
    with torch.no_grad():
        moved = (new(x) - old(x)).square().mean().sqrt() / old(x).square().mean().sqrt()
    assert float(moved) == pytest.approx(drift, rel=1e-3)
