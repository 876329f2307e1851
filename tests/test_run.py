"""A repair as a run: broken off at any moment, resumed, repeated, emitted, and refused."""

from __future__ import annotations

import csv
import json
import os
import random
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import gradscope
from gradscope.cli.main import main
from gradscope.repair import loop
from gradscope.repair.checkpoints import Keeper

SAMPLES = Path(__file__).parent.parent / "sample_models"
SHORT = ["--epochs", "3", "--method", "kappa"]


class Killed(BaseException):
    """Stands in for kill -9: nothing that handles errors sees it."""


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> Path:
    """A small saturated model with dropout, which draws, and some of the digits."""
    folder = tmp_path_factory.mktemp("sample")
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Linear(64, 12), nn.Tanh(), nn.Dropout(0.1), nn.Linear(12, 12), nn.Tanh(),
        nn.Linear(12, 10),
    )  # fmt: skip
    with torch.no_grad():
        module[0].weight.mul_(60)
        module[3].weight.mul_(60)
    torch.save(module, folder / "model.pt")
    for name, count in (("digits", 192), ("digits_val", 128)):
        held = np.load(SAMPLES / f"{name}.npz")
        np.savez(folder / f"{name}.npz", x=held["x"][:count], y=held["y"][:count])
    return folder


@pytest.fixture
def here(sample: Path, tmp_path: Path, monkeypatch) -> Path:
    """A folder with the model and the data, to work in."""
    shutil.copytree(sample, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def words(*options: str, out: str = "f.pt") -> list[str]:
    data = ["--data", "digits.npz", "--val", "digits_val.npz"]
    return ["fix", "model.pt", *data, "--out", out, *options]


@pytest.fixture(scope="module")
def unbroken(sample: Path, tmp_path_factory) -> dict[str, bytes]:
    """What a run that nothing disturbs writes: with a race, and without one."""
    folder = tmp_path_factory.mktemp("unbroken")
    shutil.copytree(sample, folder, dirs_exist_ok=True)
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert main(words(*SHORT)) == 0
        assert main(words("--epochs", "3", "--lr", "5e-3", out="race.pt")) == 0
    finally:
        os.chdir(before)
    files = [*folder.glob("*.pt"), *folder.glob("*.run/*.csv"), *folder.glob("*.run/*.json")]
    return {str(f.relative_to(folder)): f.read_bytes() for f in files}


def break_at(monkeypatch, step: int, error: type[BaseException]) -> None:
    """Let the ``step``-th step of all trainings together fail."""
    done = [0]
    original = loop._Training._one_step

    def one_step(self):
        done[0] += 1
        if done[0] == step:
            raise error
        return original(self)

    monkeypatch.setattr(loop._Training, "_one_step", one_step)


def moments(count: int, last: int) -> list[int]:
    return sorted(random.Random(0).sample(range(1, last), count))


@pytest.mark.parametrize("step", moments(4, 17))
def test_broken_off_at_any_step_it_ends_with_the_same_bytes(here, unbroken, monkeypatch, step):
    choice = random.Random(step)
    with monkeypatch.context() as patch:
        patch.setattr(Keeper, "due", lambda self: choice.random() < 0.4)
        break_at(patch, step, Killed)
        with pytest.raises(Killed):
            main(words(*SHORT))
        assert not (here / "f.pt").exists()
    assert main(["fix", "--run", "f.pt.run"]) == 0
    for name in ("f.pt", "f.pt.run/history.csv", "f.pt.run/before.json", "f.pt.run/after.json"):
        assert (here / name).read_bytes() == unbroken[name], name


@pytest.mark.parametrize("step", [30, 108])
def test_the_same_where_remedies_race(here, unbroken, monkeypatch, step):
    """In the first race, in the second, and in the fine-tuning."""
    command = words("--epochs", "3", "--lr", "5e-3", out="race.pt")
    with monkeypatch.context() as patch:
        break_at(patch, step, Killed)
        with pytest.raises(Killed):
            main(command)
    assert main(command) == 0  # the command itself goes on as well
    assert (here / "race.pt").read_bytes() == unbroken["race.pt"]
    assert [p.name for p in (here / "race.pt.run/checkpoints").iterdir()] == ["fine-tuning.pt"]


def test_what_is_kept_can_be_read_without_running_code(here):
    assert main(words(*SHORT)) == 0
    kept = torch.load(here / "f.pt.run/checkpoints/fine-tuning.pt", weights_only=True)
    assert set(kept["state"]) >= {
        "step", "tensors", "best", "optimizer", "random", "place", "moments", "stopped",
    }  # fmt: skip
    assert (kept["state"]["step"], kept["state"]["done"]) == (18, True)


def test_killed_it_leaves_the_output_absent_and_ends_with_the_same_bytes(here, capfd):
    """By a signal that no program can handle."""
    options = ["--method", "kappa", "--epochs", "100", "--patience", "0"]
    assert main(words(*options, out="whole.pt")) == 0
    command = [sys.executable, "-m", "gradscope", *words(*options)]
    environment = {**os.environ, "PYTHONPATH": str(Path(gradscope.__file__).parent.parent)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL)  # fmt: skip
    kept = here / "f.pt.run/checkpoints/fine-tuning.pt"
    while process.poll() is None and not kept.exists():
        time.sleep(0.01)
    time.sleep(random.Random(0).random() * 0.3)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not (here / "f.pt").exists()
    assert tomllib.loads((here / "f.pt.run/run.toml").read_text())["repair"]["epochs"] == 100
    capfd.readouterr()
    assert main(["fix", "--run", "f.pt.run", "--format", "json"]) == 0
    assert json.loads(capfd.readouterr().out)["resumed"] is not None
    assert (here / "f.pt").read_bytes() == (here / "whole.pt").read_bytes()
    assert not list(here.glob(".*"))
    assert not list(here.glob("f.pt.run/.*"))


def test_ctrl_c_says_how_to_go_on_and_that_works(here, unbroken, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        break_at(patch, 9, KeyboardInterrupt)
        assert main(words(*SHORT)) == 130
    (line,) = capsys.readouterr().err.splitlines()
    lead = "gradscope: interrupted; go on with: "
    assert line.startswith(lead)
    assert main(shlex.split(line.removeprefix(lead))[1:]) == 0
    assert (here / "f.pt").read_bytes() == unbroken["f.pt"]


def test_ctrl_c_before_anything_has_begun(here, monkeypatch, capsys):
    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("gradscope.loading.load_model", interrupted)
    assert main(words(*SHORT)) == 130
    assert capsys.readouterr().err == "gradscope: interrupted.\n"
    assert not (here / "f.pt.run").exists()


@pytest.mark.parametrize("after", [0.06, 0.2, 0.5, 1.0])
def test_ctrl_c_while_it_starts_is_answered_in_one_line(tmp_path, after):
    """While Python itself starts there is no answer yet: that takes some hundredths of a second."""
    environment = {**os.environ, "PYTHONPATH": str(Path(gradscope.__file__).parent.parent)}
    ready = "import sys; print(flush=True); from gradscope.start import run; sys.argv[1:] = "
    ready += f"['inspect', {str(SAMPLES / 'deep_tanh.pt')!r}, '--trial', '0']; sys.exit(run())"
    process = subprocess.Popen([sys.executable, "-c", ready], env=environment, text=True,
                               stderr=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(after)
    process.send_signal(signal.SIGINT)
    error = process.communicate()[1]
    assert process.returncode in (0, 130)  # 0: it was quicker
    assert error == ("gradscope: interrupted.\n" if process.returncode else "")


@pytest.mark.parametrize("name", ["model.pt", "digits.npz", "digits_val.npz"])
def test_a_changed_input_is_refused_by_name(here, capsys, name):
    assert main(words(*SHORT, "--emit-only")) == 0
    content = bytearray((here / name).read_bytes())
    content[-1] ^= 1
    (here / name).write_bytes(content)
    capsys.readouterr()
    assert main(["fix", "--run", "f.pt.run"]) == 2
    error = capsys.readouterr().err
    assert f"the input '{name}' is not what it was" in error
    assert error.count("\n") == 1


def test_the_file_of_the_architecture_is_an_input(here, capsys):
    (here / "net.py").write_text(
        "from torch import nn\n"
        "def make():\n"
        "    return nn.Sequential(nn.Linear(64, 12), nn.Tanh(), nn.Dropout(0.1),\n"
        "                         nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, 10))\n"
    )
    module = torch.load(here / "model.pt", weights_only=False)
    torch.save(module.state_dict(), here / "model.pt")
    assert main(words(*SHORT, "--arch", "net.py:make", "--emit-only")) == 0
    hashes = tomllib.loads((here / "f.pt.run/run.toml").read_text())["sha256"]
    assert set(hashes) == {"model.pt", "digits.npz", "digits_val.npz", "net.py"}
    (here / "net.py").write_text((here / "net.py").read_text() + "# another\n")
    assert main(["fix", "--run", "f.pt.run"]) == 2
    assert "'net.py'" in capsys.readouterr().err


def test_emitted_it_runs_elsewhere_with_the_same_result(here, unbroken, capsys, monkeypatch):
    assert main(words(*SHORT, "--emit-only")) == 0
    assert not (here / "f.pt").exists()
    assert sorted(p.name for p in (here / "f.pt.run").iterdir()) == [
        "README.md", "before.json", "run.toml",
    ]  # fmt: skip
    there = here / "there"
    there.mkdir()
    for name in ("model.pt", "digits.npz", "digits_val.npz", "f.pt.run"):
        shutil.move(here / name, there / name)
    assert main(["fix", "--run", "there/f.pt.run"]) == 0  # from another folder
    assert (there / "f.pt").read_bytes() == unbroken["f.pt"]


def test_files_may_be_elsewhere(here, unbroken, capsys):
    assert main(words(*SHORT, "--emit-only")) == 0
    (here / "data").mkdir()
    shutil.move(here / "digits.npz", here / "data/train.npz")
    assert main(["fix", "--run", "f.pt.run"]) == 2
    assert "the input 'digits.npz' of the run is not there. Say where" in capsys.readouterr().err
    assert main(["fix", "--run", "f.pt.run", "--data", "data/train.npz", "--out", "g.pt"]) == 0
    assert (here / "g.pt").read_bytes() == unbroken["f.pt"]


def test_a_run_that_has_ended_is_repeated(here, capsys):
    assert main(words(*SHORT)) == 0
    files = {p: p.read_bytes() for p in here.rglob("*") if p.is_file()}
    capsys.readouterr()
    assert main(["fix", "--run", "f.pt.run"]) == 0
    assert capsys.readouterr().err == "gradscope: the same bytes as the run before\n"
    assert {p: p.read_bytes() for p in here.rglob("*") if p.is_file()} == files


def test_other_settings_are_another_run(here, monkeypatch):
    with monkeypatch.context() as patch:
        break_at(patch, 9, Killed)
        with pytest.raises(Killed):
            main(words(*SHORT))
    assert main(words(*SHORT, "--lr", "5e-3")) == 0
    rows = list(csv.DictReader((here / "f.pt.run/history.csv").read_text().splitlines()))
    assert main(words(*SHORT, "--lr", "5e-3", out="g.pt")) == 0
    assert list(csv.DictReader((here / "g.pt.run/history.csv").read_text().splitlines())) == rows


def test_not_improved_is_kept_as_a_run_and_nothing_is_written(here, capsys):
    held = np.load(here / "digits_val.npz")
    y = np.random.default_rng(0).permutation(held["y"])
    np.savez(here / "digits_val.npz", x=held["x"], y=y)
    assert main(words(*SHORT)) == 1
    assert not (here / "f.pt").exists()
    result = tomllib.loads((here / "f.pt.run/run.toml").read_text())["result"]
    assert result["outcome"] == "not improved"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fix"], "MODEL: missing"),
        (["fix", "--run", "nowhere"], "'nowhere' is no folder of a run"),
        (["fix", "--run", "f.pt.run", "--epochs", "3"], "--epochs: is a setting of the run"),
        (["fix", "--run", "f.pt.run", "--lr", "1"], "--lr: is a setting of the run"),
        (words("--emit-only", "--no-finetune"), "without fine-tuning there is no run"),
        (words("--regularize", "spectral", "--strength", "0"), "leaves no weights"),
        (words("--regularize", "adamw", "--optimizer", "sgd"), "a decay of its own optimiser"),
        (words(out="/proc/f.pt"), "cannot be written"),
    ],
)
def test_refused(here, capsys, arguments, said):
    before = sorted(here.rglob("*"))
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("epochs = 3", 'epochs = "3"', "epochs is '3', which is no int"),
        ("epochs = 3", "epoch = 3", "[repair] has no setting 'epoch'"),
        ("[model]", "[mod", "cannot be read"),
        ("[model]", "[other]", "names no model"),
    ],
)
def test_a_damaged_run_file_is_named(here, capsys, old, new, said):
    assert main(words(*SHORT, "--emit-only")) == 0
    file = here / "f.pt.run/run.toml"
    file.write_text(file.read_text().replace(old, new))
    capsys.readouterr()
    assert main(["fix", "--run", "f.pt.run"]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("limit", [500, 5_000, 20_000, 50_000])
def test_a_full_disk_leaves_nothing_behind(here, capsys, limit):
    """No file may grow beyond the limit: the folder, a checkpoint or the model do not fit."""
    before = sorted(here.rglob("*"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        status = main(words(*SHORT))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    error = capsys.readouterr().err
    assert status == 2
    assert "File too large" in error
    assert error.count("\n") == 1
    assert sorted(here.rglob("*")) == before


def test_two_processes_do_not_share_a_run(here, capsys, monkeypatch):
    original, found = loop._Training._one_step, []

    def one_step(self):
        if not found:
            found.append(None)
            found.append(main(["fix", "--run", "f.pt.run"]))
        return original(self)

    monkeypatch.setattr(loop._Training, "_one_step", one_step)
    assert main(words(*SHORT)) == 0
    assert found[1] == 2
    assert "is being run by another process" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_files_of_external_data_are_inputs(here, capsys):
    module = torch.load(here / "model.pt", weights_only=False).eval()
    x = torch.zeros(2, 64)
    torch.onnx.export(module, (x,), "model.onnx", dynamo=False, input_names=["x"],
                      dynamic_axes={"x": {0: "n"}})  # fmt: skip
    onnx.save(onnx.load("model.onnx"), "model.onnx", save_as_external_data=True,
              location="weights.bin", size_threshold=0)  # fmt: skip
    before = (here / "weights.bin").read_bytes()
    command = ["fix", "model.onnx", "--data", "digits.npz", "--val", "digits_val.npz", *SHORT]
    capsys.readouterr()
    assert main([*command, "--out", "weights.bin"]) == 2
    assert "is an input of this run" in capsys.readouterr().err
    assert (here / "weights.bin").read_bytes() == before
    assert main([*command, "--out", "f.onnx", "--emit-only"]) == 0
    hashes = tomllib.loads((here / "f.onnx.run/run.toml").read_text())["sha256"]
    assert "weights.bin" in hashes


@pytest.mark.filterwarnings("ignore")
def test_events_are_read_back(here):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert main(words(*SHORT, "--tensorboard")) == 0
    found = EventAccumulator(str(here / "f.pt.run/tensorboard")).Reload()
    rows = list(csv.DictReader((here / "f.pt.run/history.csv").read_text().splitlines()))
    scores = found.Scalars("held-out/points")
    assert [s.step for s in scores] == [int(r["step"]) for r in rows]
    assert [s.value for s in scores] == pytest.approx([float(r["accuracy"]) for r in rows])
    losses = [float(r["training_loss"]) for r in rows[1:]]
    assert [s.value for s in found.Scalars("training/loss")] == pytest.approx(losses)


def test_events_without_the_package(here, capsys, monkeypatch):
    monkeypatch.setattr("gradscope.cli.events.find_spec", lambda name: None)
    assert main(words("--tensorboard")) == 2
    assert "gradscope-cli[tensorboard]" in capsys.readouterr().err
