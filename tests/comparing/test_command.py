"""``gradscope compare`` as it is typed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from gradscope.cli.main import main
from tests.bad_requests import good_files, network

DATA = ["--data", "data.npz", "--samples", "8", "--draws", "1"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a copy of it with weights that are far too large, and both of their reports."""
    folder = tmp_path_factory.mktemp("compare")
    good_files(folder)
    net = network()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter *= 200
    torch.save(net, folder / "large.pt")
    small = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    torch.save(small.state_dict(), folder / "small.pt")  # of factory.py:net
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("model", "large"):
            command = ["inspect", f"{name}.pt", *DATA, "--format", "json", "--out", f"{name}.json"]
            assert main(command) == 0
    return folder


@pytest.fixture
def folder(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made)
    return made


def compared(*arguments: str, capsys: pytest.CaptureFixture[str]) -> dict:
    assert main(["compare", *arguments, "--format", "json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_models_and_reports_of_them_compare_alike(folder, capsys):
    live = compared("model.pt", "large.pt", *DATA, capsys=capsys)
    mixed = compared("model.json", "large.pt", *DATA, capsys=capsys)
    saved = compared("model.json", "large.json", capsys=capsys)
    for key in ("regression", "changes", "ledger", "trends", "notes"):
        assert live[key] == mixed[key] == saved[key], key
    assert live["regression"]
    figures = [[s["figures"] for s in found["subjects"]] for found in (live, mixed, saved)]
    assert figures[0] == figures[1] == figures[2]
    assert [s["saved"] for s in mixed["subjects"]] == [True, False]


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["model.json", "large.json"], 0),
        (["model.json", "large.json", "--fail-on-regression"], 1),
        (["large.json", "model.json", "--fail-on-regression"], 0),
        (["model.json", "model.json", "--fail-on-regression"], 0),
        (["model.json", "model.json", "large.json", "--fail-on-regression"], 1),
    ],
)
def test_status(folder, arguments, status, capsys):
    assert main(["compare", *arguments]) == status
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("names", "letters", "lost"),
    [
        (["model.json", "nowhere.pt", "large.json"], ["A", "C"], "nowhere.pt"),
        (["model.json", "large.json", "no_report.json"], ["A", "B"], "no_report.json"),
        (["nowhere.json", "model.json", "large.json"], ["B", "C"], "nowhere.json"),
    ],
)
def test_one_that_cannot_be_served_keeps_nothing_of_the_others(
    folder, names, letters, lost, capsys
):
    (folder / "no_report.json").write_text('{"schema": 1}')
    assert main(["compare", *names, "--fail-on-regression", "--format", "json"]) == 2
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert err == ""
    assert [s["letter"] for s in found["subjects"]] == letters
    assert [r["path"] for r in found["refused"]] == [lost]
    assert found["regression"]


def test_fewer_than_two_that_can_be_served_are_no_comparison(folder, capsys):
    assert main(["compare", "model.json", "one.pt", "two.pt"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "one.pt" in err


def test_reports_alone_need_no_torch(folder):
    code = (
        "import sys; from gradscope.cli.main import main; status = main(sys.argv[1:])\n"
        "heavy = {'torch', 'numpy', 'onnx', 'onnxruntime', 'safetensors'} & set(sys.modules)\n"
        "assert not heavy, heavy\nsys.exit(status)"
    )
    command = ["compare", "model.json", "large.json", "--output", "html:page.html"]
    done = subprocess.run(
        [sys.executable, "-c", code, *command], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "B worse than A" in done.stdout
    assert (folder / "page.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["model.json"], "nothing to compare"),
        (["model.json", "nowhere.json"], "nowhere.json"),
        (["model.json", "data.npz"], "data.npz"),
        (["model.json", "bad.json"], "is no report"),
        (["model.json", "large.json", "--format", "htlm"], "Did you mean 'html'?"),
        (["model.json", "large.json", "--output", "json:model.json"], "is an input"),
        (["model.json", "large.json", "--output", "json"], "names no file"),
        (["model.json", "large.json", "--format", "json", "--format", "html"], "whole document"),
        (["model.pt", "large.json", "--standardise"], "without --data"),
    ],
)
def test_refused_in_one_line(folder, arguments, said, capsys):
    (folder / "bad.json").write_text('{"schema": 1}')
    before = (folder / "model.json").read_bytes()
    assert main(["compare", *arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert said in err
    assert (folder / "model.json").read_bytes() == before


def test_the_settings_file_says_how_models_are_opened(folder, capsys):
    (folder / "gradscope.toml").write_text(
        'data = "data.npz"\nsamples = 8\ndraws = 1\noutput = ["sarif:never.sarif"]\n'
        '[[model]]\npath = "small.pt"\narch = "factory.py:net"\n'
    )
    try:
        found = compared("model.json", "small.pt", capsys=capsys)
    finally:
        (folder / "gradscope.toml").unlink()
    assert found["notes"] == []
    assert not (folder / "never.sarif").exists()


def test_what_is_measured_is_chosen_as_in_inspect(folder, tmp_path, capsys):
    options = ["--no-gradients", "--dtype", "float64", "--device-map", "auto"]
    saved = [str(tmp_path / f"{name}.json") for name in ("model", "large")]
    for name, path in zip(("model", "large"), saved, strict=True):
        inspect = ["inspect", f"{name}.pt", *DATA, *options, "--format", "json", "--out", path]
        assert main(inspect) == 0
    live = compared("model.pt", "large.pt", *DATA, *options, capsys=capsys)
    of_reports = compared(*saved, capsys=capsys)
    for key in ("regression", "changes", "ledger", "trends", "notes"):
        assert live[key] == of_reports[key], key
    both = [[s["figures"] for s in found["subjects"]] for found in (live, of_reports)]
    assert both[0] == both[1]
    assert both[0][0]["total"] is None


def test_another_output_is_compared(folder, capsys):
    assert main(["compare", "model.pt", "large.pt", *DATA, "--head", "nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err
