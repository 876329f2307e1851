"""What ``gradscope fix`` refuses, warns of, or returns as it is."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from gradscope.cli.main import main
from tests.test_fix import DATA, DIGITS, SAMPLES, accuracy, build, run


@pytest.mark.parametrize("extra", [[], ["--no-finetune"]])
def test_healthy_is_returned_bit_for_bit(tmp_path, capsys, extra):
    out = tmp_path / "fixed.pt"
    model = SAMPLES / "healthy_tanh.pt"
    status, report = run(capsys, str(model), *DIGITS, "--out", str(out), *extra)
    assert (status, report["outcome"]) == (0, "unchanged")
    assert out.read_bytes() == model.read_bytes()


def test_what_works_in_part_only_is_tried_before_it_is_called_healthy(tmp_path, capsys):
    """Large weights that know two thirds: a repaired copy shows what they could know."""
    torch.manual_seed(0)
    module = build.each(build.mlp(3, 32, nn.Tanh), lambda p: p.normal_(0, 1))
    module, out = build.train(module, DATA, 1500), tmp_path / "fixed.pt"
    torch.save(module, tmp_path / "model.pt")
    arguments = [str(tmp_path / "model.pt"), *DIGITS, "--samples", "all"]
    assert main(["inspect", *arguments, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "healthy"
    status, report = run(capsys, *arguments[:-2], "--out", str(out), "--epochs", "10")
    assert (status, report["outcome"], report["chosen"]) == (0, "improved", "kappa-refit")
    before, right_after, after = (s["score"] for s in report["stages"])
    assert before < 0.75 < right_after < 0.94 < after
    assert accuracy(torch.load(out, weights_only=False)) == pytest.approx(after)


def test_a_healthy_start_is_no_fault(tmp_path, capsys):
    """It has learned nothing yet, and neither would a repaired copy learn more."""
    torch.manual_seed(0)
    torch.save(build.xavier(build.mlp(3, 32, nn.Tanh)), tmp_path / "model.pt")
    out = tmp_path / "fixed.pt"
    status, report = run(capsys, str(tmp_path / "model.pt"), *DIGITS, "--out", str(out))
    assert (status, report["outcome"]) == (0, "unchanged")
    assert out.read_bytes() == (tmp_path / "model.pt").read_bytes()


def test_a_plan_writes_nothing(tmp_path, capsys):
    model = str(SAMPLES / "saturated_tanh.pt")
    before = sorted(tmp_path.iterdir())
    status, report = run(capsys, model, *DIGITS, "--plan")
    assert (status, report["outcome"]) == (0, "planned")
    assert [p["remedy"] for p in report["plan"]] == ["kappa", "restart"]
    assert sorted(tmp_path.iterdir()) == before


def test_not_improved_writes_nothing(tmp_path, capsys):
    """Labels that mean nothing: no repair can be better than guessing."""
    random = np.random.default_rng(0)
    held = np.load(SAMPLES / "digits.npz")
    np.savez(tmp_path / "noise.npz", x=held["x"], y=random.permutation(held["y"]))
    np.savez(tmp_path / "noise_val.npz", x=held["x"][:300], y=random.integers(0, 10, 300))
    out = tmp_path / "fixed.pt"
    status, report = run(
        capsys, str(SAMPLES / "saturated_tanh.pt"), "--data", str(tmp_path / "noise.npz"),
        "--val", str(tmp_path / "noise_val.npz"), "--out", str(out), "--epochs", "3",
    )  # fmt: skip
    assert (status, report["outcome"]) == (1, "not improved")
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([*DIGITS], "--out: missing"),
        (["--out", "{tmp}/f.pt"], "--data: missing"),
        ([*DIGITS, "--out", "{tmp}/no/f.pt"], "does not exist"),
        ([*DIGITS, "--out", "{model}"], "inputs are never modified"),
        ([*DIGITS, "--out", "{tmp}/f.pt", "--method", "magic"], "there is no remedy 'magic'"),
        ([*DIGITS, "--out", "{tmp}/f.pt", "--lr", "-1"], "no learning rate"),
        ([*DIGITS, "--out", "{tmp}/f.pt", "--alpha", "0"], "no scale"),
        ([*DIGITS, "--out", "{tmp}/f.pt", "--alpha", "2", "--method", "kappa"], "no meaning"),
        ([*DIGITS, "--out", "{tmp}/f.pt", "--rescale", "--method", "restart"], "no rescaling"),
        ([*DIGITS, "--out", "{tmp}/f.pt", "--method", "identity"], "no recurrent layer"),
        (
            [*DIGITS, "--out", "{tmp}/f.pt", "--layers", "9*"],
            "'9*' matches no parameter",
        ),
        (
            [*DIGITS, "--out", "{tmp}/f.pt", "--freeze", "0.wait"],
            "parameter is '0.weight'",
        ),
        ([*DIGITS, "--out", "{tmp}/f.pt", "--freeze", "0", "--layers", "0.*"], "is frozen"),
        ([*DIGITS, "--out", "{tmp}/f.pt", "--freeze", "*"], "no parameter left"),
    ],
)
def test_bad_requests(tmp_path, capsys, arguments, said):
    model = str(SAMPLES / "saturated_tanh.pt")
    filled = [a.format(tmp=tmp_path, model=model) for a in arguments]
    assert main(["fix", model, *filled]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "f.pt").exists()


def test_a_folder_that_is_no_run_is_left_alone(tmp_path, capsys):
    (tmp_path / "f.pt.run").mkdir()
    arguments = [
        "fix",
        str(SAMPLES / "saturated_tanh.pt"),
        *DIGITS,
        "--out",
        str(tmp_path / "f.pt"),
    ]
    assert main(arguments) == 2
    assert "is something else already" in capsys.readouterr().err
    assert not (tmp_path / "f.pt").exists()


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("small_weights.pt", ["--regularize", "l2", "--strength", "0.01"], "too small already"),
        ("small_weights.pt", [], None),
        ("saturated_tanh.pt", ["--regularize", "adamw", "--strength", "3"], "over-shrinks"),
        ("saturated_tanh.pt", ["--regularize", "l2", "--strength", "0.01"], None),
    ],
)
def test_choices_that_harm_are_warned_of(capsys, name, options, said):
    _, report = run(capsys, str(SAMPLES / name), *DIGITS, "--plan", *options)
    assert len(report["warnings"]) == (said is not None)
    assert said is None or said in report["warnings"][0]
