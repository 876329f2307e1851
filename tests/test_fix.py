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
import onnxruntime
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from gradscope.cli.main import main
from tests.renew_golden import FIX_SCHEMA

FIX = jsonschema.Draft202012Validator(json.loads(FIX_SCHEMA.read_text()))
SAMPLES = Path(__file__).parent.parent / "sample_models"
sys.path.insert(0, str(SAMPLES))
import build  # noqa: E402

DATA = build.digits()
DIGITS = ["--data", str(SAMPLES / "digits.npz"), "--val", str(SAMPLES / "digits_val.npz")]
ARCH = """
import torch
from torch import nn
def net():
    layers = []
    for i in range(3):
        layers += [nn.Linear(64 if i == 0 else 32, 32), nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(32, 10))
"""


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


def test_without_training_nothing_is_drawn_anew_and_what_is_best_as_it_is_wins(tmp_path, capsys):
    """The untouched copy and a remedy: neither is trained to find out which is ahead."""
    model = SAMPLES / "saturated_tanh.pt"
    where = ("--out", str(tmp_path / "f.pt"), "--no-finetune")
    _, report = run(capsys, str(model), *DIGITS, *where)
    assert report["plan"]
    assert "restart" not in [p["remedy"] for p in report["plan"]]
    assert report["history"]["steps"] == []


def saturated_state() -> dict[str, torch.Tensor]:
    module = torch.load(SAMPLES / "saturated_tanh.pt", weights_only=False)
    return module.state_dict()


def net(folder: Path) -> str:
    path = folder / "net.py"
    path.write_text(ARCH)
    return f"{path}:net"


@pytest.mark.parametrize("legacy", [False, True])
def test_a_nested_checkpoint_keeps_all_the_rest(tmp_path, capsys, legacy):
    state = saturated_state()
    whole = {
        "epoch": 7,
        "model": {f"module.{k}": v for k, v in state.items()},
        "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]},
        "args": {"name": "run-1"},
    }
    path, out = tmp_path / "last.pt", tmp_path / "fixed.pt"
    torch.save(whole, path, _use_new_zipfile_serialization=not legacy)
    arch = ["--arch", net(tmp_path)]
    status, _ = run(capsys, str(path), *DIGITS, *arch, "--out", str(out), "--epochs", "4")
    assert status == 0
    found = torch.load(out)
    assert list(found) == list(whole)
    assert (found["epoch"], found["args"]) == (7, {"name": "run-1"})
    assert torch.equal(found["optimizer"]["state"][0]["exp_avg"], torch.ones(3))
    assert list(found["model"]) == list(whole["model"])
    module = torch.load(SAMPLES / "saturated_tanh.pt", weights_only=False)
    module.load_state_dict({k.removeprefix("module."): v for k, v in found["model"].items()})
    assert accuracy(module) > 0.9


def test_safetensors_keep_their_metadata(tmp_path, capsys):
    path, out = tmp_path / "model.safetensors", tmp_path / "fixed.safetensors"
    save_file(saturated_state(), path, metadata={"made": "by hand"})
    arch = ["--arch", net(tmp_path)]
    status, _ = run(capsys, str(path), *DIGITS, *arch, "--out", str(out), "--epochs", "4")
    assert status == 0
    with safe_open(out, framework="pt") as archive:
        assert archive.metadata() == {"made": "by hand"}
    module = torch.load(SAMPLES / "saturated_tanh.pt", weights_only=False)
    module.load_state_dict(load_file(out))
    assert accuracy(module) > 0.9


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("trace", [False, True])
def test_scripts(tmp_path, capsys, trace):
    path, out = tmp_path / "model.ts", tmp_path / "fixed.ts"
    module = torch.load(SAMPLES / "saturated_tanh.pt", weights_only=False)
    made = torch.jit.trace(module, DATA.val[0][:8]) if trace else torch.jit.script(module)
    made.save(path)
    status, report = run(capsys, str(path), *DIGITS, "--out", str(out), "--epochs", "4")
    assert status == 0
    found = accuracy(torch.jit.load(out))
    assert found == pytest.approx(report["stages"][-1]["score"])
    assert found > 0.9


@pytest.mark.filterwarnings("ignore")
def test_onnx_run_by_onnxruntime(tmp_path, capsys):
    path, out = tmp_path / "model.onnx", tmp_path / "fixed.onnx"
    module = torch.load(SAMPLES / "saturated_tanh.pt", weights_only=False)
    torch.onnx.export(
        module, (DATA.val[0][:2],), str(path), dynamo=False, input_names=["x"],
        dynamic_axes={"x": {0: "n"}},
    )  # fmt: skip
    status, report = run(capsys, str(path), *DIGITS, "--out", str(out), "--epochs", "4")
    assert status == 0
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    (scores,) = session.run(None, {"x": DATA.val[0].numpy()})
    found = (scores.argmax(axis=1) == DATA.val[1].numpy()).mean()
    assert found == pytest.approx(report["stages"][-1]["score"])
    assert found > 0.9


def test_exported_programs(tmp_path, capsys):
    path, out = tmp_path / "model.pt2", tmp_path / "fixed.pt2"
    module = torch.load(SAMPLES / "saturated_tanh.pt", weights_only=False).eval()
    batch = torch.export.Dim("batch", min=1, max=4096)
    program = torch.export.export(module, (DATA.val[0][:4],), dynamic_shapes=({0: batch},))
    torch.export.save(program, path)
    status, report = run(capsys, str(path), *DIGITS, "--out", str(out), "--epochs", "4")
    assert status == 0
    found = accuracy(torch.export.load(out).module())
    assert found == pytest.approx(report["stages"][-1]["score"])
    assert found > 0.9


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
