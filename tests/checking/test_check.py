"""``gradscope check`` from the command line: several models, one summary, an exit status."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from gradscope import pipeline
from gradscope.cli.main import main
from gradscope.config import Settings
from gradscope.diagnosis import Inspection
from gradscope.errors import LoadError, ProbeError
from gradscope.progress import Progress
from tests.checking.examples import INSPECTIONS as HAND_MADE

SAMPLES = Path(__file__).parents[2] / "sample_models"
DATA = ("--data", "digits.npz", "--val", "digits_val.npz")

INSPECTIONS = {
    "healthy": HAND_MADE["healthy"],
    "deep": HAND_MADE["unhealthy"],
    "open": HAND_MADE["undetermined, made-up input"],
    "large": HAND_MADE["saturated"],
}


def _stub(settings: Settings, progress: Progress | None = None, **others: object) -> Inspection:
    """What is found in a model depends on its name alone."""
    name = Path(settings.model).stem
    if name == "bug":
        raise ZeroDivisionError("oh")
    if name == "exits":
        raise SystemExit(3)
    if name == "odd":
        raise ProbeError("nothing could be measured", where=settings.model)
    if name not in INSPECTIONS:
        raise LoadError("cannot be read", where=settings.model, hint="Check the name.")
    return INSPECTIONS[name]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with models that need no examination."""
    monkeypatch.setattr(pipeline, "inspect", _stub)
    (tmp_path / "models").mkdir()
    for name in (*INSPECTIONS, "broken", "odd", "exits", "bug"):
        (tmp_path / "models" / f"{name}.pt").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def models(*names: str) -> list[str]:
    """The command line of a check."""
    return ["check", *(f"models/{name}.pt" for name in names)]


# --- real models -------------------------------------------------------------------------------


def test_real_models_are_judged_and_summed_up(monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.chdir(SAMPLES)
    run = ["check", "deep_tanh.pt", "healthy*.pt", "gone.pt", *DATA, "--format"]
    outputs = []
    for form in ("concise", "json", "json"):
        assert main([*run, form]) == 2
        out, err = capsys.readouterr()
        assert err == ""
        assert str(SAMPLES) not in out
        outputs.append(out)
    lines = outputs[0].splitlines()
    assert any(
        re.match(r"deep_tanh\.pt: .*: error GS101 vanishing-gradient: -", li) for li in lines
    )
    assert "gone.pt: refused: cannot be read: No such file or directory. Check the name." in lines
    assert lines[-1].startswith("3 models: 1 unhealthy, 1 healthy, 1 refused; ")
    assert outputs[1] == outputs[2]
    paths = [m["path"] for m in json.loads(outputs[1])["models"]]
    assert paths == ["deep_tanh.pt", "healthy_tanh.pt", "gone.pt"]


# --- exit statuses -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (models("healthy"), 0),
        (models("healthy", "deep"), 1),
        (models("deep", "odd"), 3),
        (models("odd", "broken", "deep"), 2),
        (models("exits"), 2),
        ([*models("deep", "broken"), "--fail-on", "never"], 2),
        ([*models("deep"), "--fail-on", "never"], 0),
        ([*models("open"), "--fail-on", "warning"], 0),
        ([*models("open"), "--fail-on", "undetermined"], 1),
        ([*models("deep"), "--select", "GS2"], 0),
        ([*models("deep"), "--select", "GS2", "--select", "vanishing-gradient"], 1),
        ([*models("large"), "--ignore", "GS2", "--ignore", "GS301"], 0),
        ([*models("large"), "--ignore", "gs201, GS202"], 0),
        (["check", "models/[hd]*.pt"], 1),
    ],
)
def test_exit_status(arguments: list[str], status: int, folder: Path, capsys):
    assert main(arguments) == status
    out, err = capsys.readouterr()
    assert f"status {status}." in re.sub(r"\s+", " ", out)
    assert err == ""


def test_a_model_that_cannot_be_served_is_a_line_and_the_others_are_judged(folder, capsys):
    assert main([*models("broken", "healthy", "exits"), "--format", "concise"]) == 2
    assert capsys.readouterr().out.splitlines() == [
        "models/broken.pt: refused: cannot be read. Check the name.",
        "models/exits.pt: refused: the code that was run ended with SystemExit(3). "
        "Guard it with `if __name__ == '__main__':`.",
        "3 models: 1 healthy, 2 refused; no findings; status 2",
    ]


def test_a_bug_says_which_model_shows_it(folder, capsys):
    assert main(models("healthy", "bug")) == 70
    assert "oh; while examining models/bug.pt" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "MODEL: missing"),
        (["nobody*.pt"], "MODEL: no file matches 'nobody*.pt'"),
        (["a.pt", "--select", "GS110"], "--select: there is no rule 'GS110'. Did you mean GS10"),
        (["a.pt", "--ignore", ""], "--ignore: there is no rule ''"),
        (["a.pt", "--select", "GS2", "--ignore", "GS20"], "--ignore: leaves no rule of those"),
        (["a.pt", "--format", "consice"], "Did you mean 'concise'?"),
        (["a.pt", "--format", "json", "--format", "concise"], "--output json:FILE"),
        (["a.pt", "--output", "concise"], "FORMAT:PATH"),
        (["a.pt", "--output", "json:x", "--output", "concise:x"], "'x' is named twice"),
        (["a.pt", "--output", "concise:a.pt"], "inputs are never modified"),
        (["a.pt", "--output", "concise:no/x"], "does not exist"),
        (["a.pt", "--baseline", "b.json"], "b.json: there is no such baseline"),
        (["a.pt", "--write-baseline"], "--write-baseline: needs --baseline"),
        (["a.pt", "--prune-baseline"], "--prune-baseline: needs --baseline"),
        (["a.pt", "--baseline", "a.pt", "--write-baseline"], "a.pt: is no baseline"),
        (["a.pt", "--baseline", "b", "--write-baseline", "--prune-baseline"], "contradicts"),
        (["a.pt", "--baseline", "b", "--write-baseline", "--output", "json:b"], "an input"),
        (["a.pt", "--limit", "GS101.x=1"], "GS101 has no threshold 'x'"),
        (["a.pt", "--device", "abacus"], "torch knows no device 'abacus'"),
        (["a.pt", "--standardise"], "means nothing without --data"),
        (["a.pt", "--arch-args", "{}"], "--arch-args: means nothing without arch"),
    ],
)
def test_what_cannot_be_served_is_one_line(arguments: list[str], said: str, folder, capsys):
    (folder / "a.pt").write_bytes(b"a model")
    assert main(["check", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert said in err
    assert (folder / "a.pt").read_bytes() == b"a model"
    assert not (folder / "b").exists()


# --- reports -----------------------------------------------------------------------------------


def test_formats_are_printed_in_order_and_written_to_files(folder, capsys):
    run = [*models("deep"), "--format", "concise", "--format", "terminal"]
    assert main([*run, "--output", "json:c.json", "--output", "concise:c.txt"]) == 1
    out = capsys.readouterr().out
    concise = (folder / "c.txt").read_text()
    assert out.startswith(f"{concise}FAIL ")
    assert json.loads((folder / "c.json").read_text())["summary"]["exit_status"] == 1


@pytest.mark.parametrize("form", ["terminal", "concise", "json"])
def test_same_inputs_same_bytes_wherever_the_project_lies(form: str, folder, capsys):
    relative = [*models("deep", "broken"), "--format", form]
    absolute = [a.replace("models/", f"{folder}/models/") for a in relative]
    outputs = []
    for run in (relative, relative, absolute):
        assert main(run) == 2
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1] == outputs[2]


def test_what_is_printed_last_works_when_pasted(folder, capsys):
    (folder / "it's.npz").touch()
    assert main([*models("deep", "healthy"), "--data", "it's.npz", "--samples", "64"]) == 1
    lines = capsys.readouterr().out.splitlines()
    commands = [shlex.split(line) for line in lines if line.startswith("  gradscope ")]
    assert [c[1] for c in commands] == ["inspect", "rule", "check"]
    assert commands[2][-3:] == ["--baseline", "gradscope-baseline.json", "--write-baseline"]
    assert main(commands[1][1:]) == 0
    assert main(commands[2][1:]) == 0
    capsys.readouterr()
    assert main(commands[2][1:-1]) == 0, "all is known now"


# --- the baseline ------------------------------------------------------------------------------


def test_a_baseline_is_a_ratchet(folder, capsys, monkeypatch):
    run = [*models("deep", "healthy"), "--baseline", "ci.json", "--format", "concise"]
    assert main([*run, "--write-baseline"]) == 0
    assert "ci.json now knows 1 finding" in capsys.readouterr().out
    written = (folder / "ci.json").read_bytes()
    assert str(folder) not in written.decode()
    assert main(run) == 0
    assert "1 known; status 0" in capsys.readouterr().out

    (lost,) = INSPECTIONS["deep"].findings
    worse = replace(INSPECTIONS["deep"], findings=(replace(lost, value=-7.0),))
    monkeypatch.setitem(INSPECTIONS, "deep", worse)
    assert main(run) == 1
    assert "(baseline: -5.32)" in capsys.readouterr().out
    assert main([*run, "--tolerance", "0.5"]) == 0
    capsys.readouterr()

    monkeypatch.setitem(INSPECTIONS, "deep", INSPECTIONS["healthy"])
    assert main(run) == 0
    out = capsys.readouterr().out
    assert "fixed GS101 vanishing-gradient" in out
    assert "--prune-baseline" in out
    assert (folder / "ci.json").read_bytes() == written, "reading writes nothing"
    assert main([*run, "--prune-baseline"]) == 0
    assert json.loads((folder / "ci.json").read_text())["models"] == {}
    monkeypatch.undo()


def test_a_baseline_moves_with_its_project(folder, capsys):
    assert main([*models("deep"), "--baseline", "ci.json", "--write-baseline"]) == 0
    elsewhere = folder.parent / f"{folder.name}-moved"
    folder.rename(elsewhere)
    assert main(["check", f"{elsewhere}/models/deep.pt", "--baseline", f"{elsewhere}/ci.json"]) == 0
    elsewhere.rename(folder)


def test_a_refused_model_keeps_its_known_findings(folder, capsys):
    assert main([*models("deep"), "--baseline", "ci.json", "--write-baseline"]) == 0
    before = (folder / "ci.json").read_bytes()
    (folder / "models" / "deep.pt").rename(folder / "models" / "x.pt")
    (folder / "models" / "broken.pt").rename(folder / "models" / "deep.pt")
    INSPECTIONS["kept"] = INSPECTIONS.pop("deep")
    try:
        assert main([*models("deep"), "--baseline", "ci.json", "--write-baseline"]) == 2
    finally:
        INSPECTIONS["deep"] = INSPECTIONS.pop("kept")
    assert (folder / "ci.json").read_bytes() == before


def test_a_baseline_from_the_settings_file_and_models_too(folder, capsys):
    (folder / "gradscope.toml").write_text(
        "baseline = 'ci.json'\n[[model]]\npath = 'models/[dh]*.pt'\n"
        "[[ignore]]\nrule = 'GS5'\nreason = 'raw pixels'\n"
    )
    assert main(["check", "--write-baseline"]) == 0
    assert main(["check"]) == 0
    out = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert "the ignore of 'GS5' matches no finding; remove it" in out
    (folder / "models" / "deep.pt").unlink()
    assert main(["check"]) == 0
    out = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert "the baseline knows 'models/deep.pt', which does not exist" in out
