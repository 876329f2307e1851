"""``gradscope fix`` end to end: what is repaired, what is written, and in which form."""

from __future__ import annotations

import csv
import hashlib
import json
import shlex
import sys
import tomllib
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import torch
from torch import nn

from gradscope.cli.main import main
from tests.renew_golden import FIX_SCHEMA

FIX = jsonschema.Draft202012Validator(json.loads(FIX_SCHEMA.read_text()))
SAMPLES = Path(__file__).parent.parent / "sample_models"
sys.path.insert(0, str(SAMPLES))
import build  # noqa: E402

DATA = build.digits()
DIGITS = ["--data", str(SAMPLES / "digits.npz"), "--val", str(SAMPLES / "digits_val.npz")]


def accuracy(module: nn.Module) -> float:
    x, y = DATA.val
    with torch.no_grad():
        return float((module(x).argmax(dim=1) == y).double().mean())


def run(capsys, *arguments: str) -> tuple[int, dict]:
    status = main(["fix", *arguments, "--format", "json"])
    report = json.loads(capsys.readouterr().out)
    FIX.validate(report)
    return status, report


@pytest.mark.parametrize(
    ("name", "band"),
    [
        ("saturated_tanh.pt", 0.96),
        ("plateaued_tanh.pt", 0.87),
        ("deep_tanh.pt", 0.87),
        ("small_weights.pt", 0.87),
        ("logistic.pt", 0.95),
    ],
)
def test_repaired_and_loaded_by_plain_torch(tmp_path, capsys, name, band):
    out = tmp_path / "fixed.pt"
    status, report = run(capsys, str(SAMPLES / name), *DIGITS, "--out", str(out), "--epochs", "25")
    assert (status, report["outcome"]) == (0, "improved")
    found = accuracy(torch.load(out, weights_only=False))
    assert found == pytest.approx(report["stages"][-1]["score"])
    assert found >= band
    assert report["verdict"]["before"] == "unhealthy"


def test_raw_pixels_are_standardised_and_folded(tmp_path, capsys):
    out = tmp_path / "fixed.pt"
    raw = ["--data", str(SAMPLES / "digits_raw.npz"), "--val", str(SAMPLES / "digits_raw_val.npz")]
    model = str(SAMPLES / "raw_pixels.pt")
    status, report = run(capsys, model, *raw, "--out", str(out), "--epochs", "20")
    assert status == 0
    assert report["stages"][-1]["score"] >= 0.94
    held = np.load(SAMPLES / "digits_raw_val.npz")
    module = torch.load(out, weights_only=False)
    right = module(torch.from_numpy(held["x"]).float()).argmax(dim=1).numpy() == held["y"]
    assert right.mean() == pytest.approx(report["stages"][-1]["score"])


def test_without_training_nothing_is_drawn_anew_and_what_is_best_as_it_is_wins(tmp_path, capsys):
    """The untouched copy and a remedy: neither is trained to find out which is ahead."""
    model = SAMPLES / "saturated_tanh.pt"
    where = ("--out", str(tmp_path / "f.pt"), "--no-finetune")
    _, report = run(capsys, str(model), *DIGITS, *where)
    assert report["plan"]
    assert "restart" not in [p["remedy"] for p in report["plan"]]
    assert report["history"]["steps"] == []


def test_same_seed_same_bytes(tmp_path, capsys):
    outs = [tmp_path / "a.pt", tmp_path / "b.pt"]
    model = str(SAMPLES / "saturated_tanh.pt")
    for out in outs:
        run(capsys, model, *DIGITS, "--out", str(out), "--epochs", "3")
    assert outs[0].read_bytes() == outs[1].read_bytes()


def test_frozen_parameters_stay(tmp_path, capsys):
    out = tmp_path / "fixed.pt"
    model = SAMPLES / "saturated_tanh.pt"
    run(capsys, str(model), *DIGITS, "--out", str(out), "--epochs", "5", "--freeze", "0.*")
    before, after = (torch.load(p, weights_only=False).state_dict() for p in (model, out))
    assert torch.equal(before["0.weight"], after["0.weight"])
    assert not torch.equal(before["2.weight"], after["2.weight"])


def lost_weights() -> nn.Module:
    """Has learned digits, and then 5 % of a matrix became NaN."""
    torch.manual_seed(0)
    module = build.mlp(2, 32, nn.ReLU)
    optimiser = torch.optim.Adam(module.parameters(), lr=1e-3)
    x, y = DATA.train
    for _ in range(600):
        rows = torch.randint(0, len(x), (32,))
        optimiser.zero_grad()
        nn.functional.cross_entropy(module(x[rows]), y[rows]).backward()
        optimiser.step()
    with torch.no_grad():
        module[2].weight[torch.rand(32, 32) < 0.05] = float("nan")
    return module


def test_numbers_that_are_not_finite_are_replaced_and_the_rest_kept(tmp_path, capsys):
    path, out = tmp_path / "model.pt", tmp_path / "fixed.pt"
    torch.save(lost_weights(), path)
    status, report = run(capsys, str(path), *DIGITS, "--out", str(out), "--epochs", "3")
    assert (status, report["outcome"]) == (0, "improved")
    assert (report["causes"], report["chosen"]) == (["nonfinite"], "revive")
    before, after, _ = report["stages"]
    assert before["loss"] is None
    assert after["score"] > 0.9
    assert accuracy(torch.load(out, weights_only=False)) > 0.94


def test_a_regression_that_gives_nan_is_compared_with_guessing(tmp_path, capsys):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 1))
    with torch.no_grad():
        module[0].weight[:2] = float("nan")
    path, out = tmp_path / "model.pt", tmp_path / "fixed.pt"
    torch.save(module, path)
    x = DATA.train[0]
    np.savez(tmp_path / "data.npz", x=x.numpy(), y=x[:, 20:30].mean(dim=1, keepdim=True).numpy())
    status, report = run(
        capsys, str(path), "--data", str(tmp_path / "data.npz"), "--out", str(out), "--epochs", "8"
    )
    assert (status, report["outcome"]) == (0, "improved")
    assert report["stages"][0]["score"] is None
    assert report["stages"][-1]["score"] > 0.5


def test_the_run_is_kept_and_its_command_repeats_it(tmp_path, capsys):
    out = tmp_path / "a fixed.pt"
    model = SAMPLES / "saturated_tanh.pt"
    options = ["--out", str(out), "--epochs", "3", "--rescale", "--seed", "3", "--lr", "2e-3"]
    _, report = run(capsys, str(model), *DIGITS, *options)
    folder = tmp_path / "a fixed.pt.run"
    assert report["run"] == str(folder)
    content = tomllib.loads((folder / "run.toml").read_text())
    for path in (model, out, *DIGITS[1::2]):
        digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        assert content["sha256"][str(path)] == digest
    assert (content["repair"]["rescale"], content["data"]["seed"]) == (True, 3)
    for name, verdict in (("before", "unhealthy"), ("after", report["verdict"]["after"])):
        assert json.loads((folder / f"{name}.json").read_text())["verdict"] == verdict
    rows = list(csv.DictReader((folder / "history.csv").read_text().splitlines()))
    assert [float(r["accuracy"]) for r in rows] == report["history"]["scores"]
    commands = (folder / "README.md").read_text().split("```")[1].strip().splitlines()
    assert [shlex.split(c)[:2] for c in commands] == [
        ["gradscope", "fix"],
        ["gradscope", "inspect"],
    ]
    first = out.read_bytes()
    assert main(shlex.split(commands[0])[1:]) == 0
    assert out.read_bytes() == first
    assert main(shlex.split(commands[1])[1:]) == 0


def test_only_some_layers_are_rescaled(tmp_path, capsys):
    model = str(SAMPLES / "saturated_tanh.pt")
    options = ["--method", "kappa", "--layers", "2", "--layers", "4.*", "--epochs", "1"]
    _, report = run(capsys, model, *DIGITS, "--out", str(tmp_path / "f.pt"), *options)
    said = " ".join(report["stages"][1]["said"])
    assert "2.weight: alpha" in said
    assert "4.weight: alpha" in said
    assert "0.weight: alpha" not in said


def test_alpha_as_in_the_paper(tmp_path, capsys):
    model = str(SAMPLES / "deep_tanh.pt")
    options = ["--alpha", "2", "--out", str(tmp_path / "f.pt"), "--epochs", "1"]
    _, report = run(capsys, model, *DIGITS, *options)
    assert report["chosen"] == "alpha"
    said = report["stages"][1]["said"]
    assert said[0] == "alpha 2 for 20 activations"
    assert said[1] == "0/tanh folded: 1/2 into 0.bias, 0.weight; 2 into 2.weight"
    places = report["stages"][1]["places"]
    assert [p["state"] for p in places] == 20 * ["folded"]
