"""The command line: what it imports, prints and returns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from rich.console import Console

from gradscope import __version__, pipeline
from gradscope.cli.main import main
from gradscope.cli.options import FailOn, Format, Mode
from gradscope.cli.progress import TerminalProgress
from gradscope.errors import ProbeError
from tests.bad_requests import BAD_FILES, BAD_OPTIONS, BAD_OUTPUTS, bad_files, good_files
from tests.hostile import HOSTILE

REFUSED = BAD_OPTIONS | BAD_FILES | BAD_OUTPUTS
GOOD = ["inspect", "model.pt", "--data", "data.npz"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with files that can be examined."""
    good_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GRADSCOPE_DEBUG", raising=False)
    return tmp_path


def run(*arguments: str, code: str | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    """A process of its own."""
    start = ["-c", code] if code else ["-m", "gradscope"]
    return subprocess.run(
        [sys.executable, *start, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | env,
    )


def contents(folder: Path) -> dict[str, bytes]:
    """Every file, byte for byte; bytecode of a factory does not count."""
    files = (p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    return {str(p): p.read_bytes() for p in files}


# --- help and version -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["inspect", "--help"], ["compare", "--help"], []]
)
def test_help_is_light(arguments: list[str]) -> None:
    code = (
        "import sys; from gradscope.cli.main import main; status = main(sys.argv[1:])\n"
        "heavy = {'torch', 'numpy', 'onnx', 'onnxruntime', 'safetensors'} & set(sys.modules)\n"
        "assert not heavy, heavy\nsys.exit(status)"
    )
    done = run(*arguments, code=code)
    assert (done.returncode, done.stderr) == (0, "")
    assert "gradscope" in done.stdout


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"gradscope {__version__}\n"


def test_help_names_every_choice(capsys: pytest.CaptureFixture[str]) -> None:
    main(["inspect", "--help"])
    # Cells of a table: words may be wrapped, so spaces and frames go.
    text = "".join(c for c in capsys.readouterr().out if c.isalnum() or c in "-.")
    for choice in [*Format, *FailOn, *Mode]:
        assert choice.value in text


# --- what is served -------------------------------------------------------------------------


def test_report_on_stdout_only(folder: Path) -> None:
    done = run(*GOOD)
    assert (done.returncode, done.stderr) == (0, "")
    assert "model.pt" in done.stdout
    assert "\x1b" not in done.stdout
    assert max(len(line) for line in done.stdout.splitlines() if "gradscope" not in line) <= 80


@pytest.mark.parametrize("format_", list(Format))
@pytest.mark.parametrize("mode", list(Mode))
def test_every_format_and_mode(
    folder: Path, format_: Format, mode: Mode, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*GOOD, "--format", format_, "--mode", mode, "--all"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.endswith("\n")
    if format_ is Format.JSON:
        report = json.loads(out)
        assert report["schema"] == "gradscope.report/1"
        assert report["run"]["mode"] == mode


@pytest.mark.parametrize("fail_on", list(FailOn))
def test_fail_on(folder: Path, fail_on: FailOn, capsys: pytest.CaptureFixture[str]) -> None:
    """On the same model: the status follows from the JSON report."""
    status = main([*GOOD, "--format", "json", "--fail-on", fail_on])
    report = json.loads(capsys.readouterr().out)
    severities = {f["severity"] for f in report["findings"]}
    levels = {"unhealthy": "error", "warning": "warning"}
    severities.add(levels.get(report["verdict"], "information"))
    expected = {
        FailOn.NEVER: False,
        FailOn.ERROR: "error" in severities,
        FailOn.WARNING: bool(severities & {"error", "warning"}),
        FailOn.UNDETERMINED: "error" in severities or report["verdict"] == "undetermined",
    }
    assert status == int(expected[fail_on])


def test_fails_on_an_unhealthy_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = Path(__file__).parent.parent / "sample_models"
    request = ["inspect", str(models / "deep_tanh.pt"), "--data", str(models / "digits.npz")]
    assert main([*request, "--fail-on", "error"]) == 1
    assert main(request) == 0
    assert "UNHEALTHY" in capsys.readouterr().out


def test_same_seed_same_bytes(folder: Path) -> None:
    for name in ("one.json", "two.json"):
        assert main([*GOOD, "--format", "json", "--seed", "3", "--out", name]) == 0
    assert (folder / "one.json").read_bytes() == (folder / "two.json").read_bytes()


def test_output_and_gradients(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(folder)
    request = [*GOOD, "--out", "report.txt", "--save-gradients", "g.safetensors"]
    assert main(request) == 0
    assert capsys.readouterr() == ("", "")
    after = contents(folder)
    assert set(after) - set(before) == {str(folder / n) for n in ("report.txt", "g.safetensors")}
    assert {k: after[k] for k in before} == before


def test_state_dict_and_factory(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A factory may print: that must not get into the report."""
    (folder / "noisy.py").write_text(
        "import warnings\nfrom tests.bad_requests import network\n"
        "def net():\n    print('building')\n    warnings.warn('old')\n    return network()\n",
        encoding="utf-8",
    )
    request = ["inspect", "state.pt", "--arch", "noisy.py:net", "--data", "data.npz"]
    assert main([*request, "--format", "json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["model"]["parameters"] == 35
    assert err == "building\n"


def test_state_dict_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Weights are something: status 0, and the report says what is missing."""
    assert main(["inspect", "state.pt"]) == 0
    assert "--arch" in capsys.readouterr().out


@pytest.mark.parametrize("command", [["inspect"], ["fix", "--plan"], ["inspect", "--samples", "8"]])
def test_a_refused_model_is_answered_with_the_command_that_would_admit_it(
    command: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = HOSTILE["os.system"](folder).name
    words = [command[0], model, "--data", "data.npz", *command[1:]]
    assert main(words) == 2
    assert capsys.readouterr().err.endswith(f": gradscope {' '.join(words)} --trust-model\n")


def test_narrow_encoding(folder: Path) -> None:
    done = run(*GOOD, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii()


@pytest.mark.parametrize("arguments", [GOOD, ["inspect", "--help"]])
def test_broken_pipe(folder: Path, arguments: list[str]) -> None:
    command = f"'{sys.executable}' -m gradscope {' '.join(arguments)} | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stderr == ""


# --- what is refused ------------------------------------------------------------------------


REQUESTS = list(REFUSED)


@pytest.mark.parametrize("name", REQUESTS)
def test_refused_in_one_line(folder: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    bad_files(folder)
    before = contents(folder)
    status = main(REFUSED[name])
    out, err = capfd.readouterr()
    assert status == 2, err
    assert out == ""
    assert err.startswith("gradscope: ")
    assert err.count("\n") == 1
    assert "internal error" not in err
    assert contents(folder) == before


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_models_are_refused_in_one_line(
    folder: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / "attack").mkdir()
    attack = HOSTILE[name](folder / "attack")
    before = contents(folder)
    status = main(["inspect", str(attack), "--data", "data.npz"])
    out, err = capfd.readouterr()
    assert (status, out, err.count("\n")) == (2, "", 1), err
    assert contents(folder) == before


def test_nothing_measured(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nothing(*_: object) -> None:
        raise ProbeError("no gradient\narrived", where="model.pt")

    monkeypatch.setattr(pipeline, "inspect", nothing)
    assert main(GOOD) == 3
    assert capsys.readouterr().err == "gradscope: model.pt: no gradient arrived\n"


def test_interrupted(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "inspect", stop)
    assert main(GOOD) == 130
    assert capsys.readouterr().err == "gradscope: interrupted.\n"


@pytest.mark.parametrize(
    "error",
    [MemoryError(), torch.OutOfMemoryError("CUDA"), RuntimeError("can't allocate memory: 8 bytes")],
    ids=["python", "accelerator", "cpu"],
)
def test_out_of_memory(
    folder: Path,
    error: Exception,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def too_much(*_: object) -> None:
        raise error

    monkeypatch.setattr("gradscope.probe.measure", too_much)
    assert main(GOOD) == 2
    assert "--batch-size" in capsys.readouterr().err


def test_a_bug_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not to be taken for a finding or a refusal; the traceback is one variable away."""

    def crash(*_: object) -> None:
        raise KeyError("layer")

    monkeypatch.setattr(pipeline, "inspect", crash)
    assert main(GOOD) == 70
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "bug" in err
    assert "GRADSCOPE_DEBUG=1" in err
    monkeypatch.setenv("GRADSCOPE_DEBUG", "1")
    with pytest.raises(KeyError):
        main(GOOD)


# --- progress -------------------------------------------------------------------------------


@pytest.fixture
def terminal() -> Iterator[Console]:
    """A terminal that remembers what was drawn."""
    with open(os.devnull, "w", encoding="utf-8") as file:
        yield Console(file=file, force_terminal=True, record=True, width=80)


def test_progress_waits(terminal: Console) -> None:
    """Nothing for quick work; a bar for slow work; nothing left over."""
    with TerminalProgress(terminal, delay=60) as bar:
        bar.start("measuring", 3)
        bar.advance()
    assert terminal.export_text(clear=True) == ""
    with TerminalProgress(terminal, delay=0.01) as bar:
        bar.start("loading", None)
        bar.start("measuring", 3)
        bar.advance()
        time.sleep(0.3)
        bar.finish()
    assert "measuring" in terminal.export_text()


def test_progress_only_on_a_terminal() -> None:
    with open(os.devnull, "w", encoding="utf-8") as file:
        console = Console(file=file, force_terminal=False, record=True)
        with TerminalProgress(console, delay=0) as bar:
            bar.start("measuring", 3)
            time.sleep(0.05)
        assert console.export_text() == ""
