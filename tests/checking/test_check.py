"""``gradscope check`` from the command line: several models, one summary, an exit status."""

from __future__ import annotations

from pathlib import Path

import pytest

from gradscope.cli.main import main

SAMPLES = Path(__file__).parents[2] / "sample_models"
DATA = ("--data", "digits.npz", "--val", "digits_val.npz")


@pytest.fixture(autouse=True)
def _folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(SAMPLES)


def test_several_models_and_globs_are_judged_and_summed_up(capsys):
    assert main(["check", "deep_tanh.pt", "healthy*.pt", *DATA, "--format", "concise"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("deep_tanh.pt: 0/tanh ... 38/tanh: error GS101 vanishing-gradient: ")
    assert lines[-1] == "2 models: 1 unhealthy, 1 healthy; 2 errors, 1 information; status 1"


def test_a_model_that_cannot_be_loaded_is_a_line_and_the_others_are_judged(capsys):
    status = main(["check", "gone.pt", "healthy_tanh.pt", *DATA, "--format", "concise"])
    out, err = capsys.readouterr()
    assert (status, err) == (2, "")
    assert out.startswith("gone.pt: refused: cannot be read")
    assert out.endswith("2 models: 1 healthy, 1 refused; no findings; status 2\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nobody*.pt"], "MODEL: no file matches 'nobody*.pt'"),
        (["a.pt", "--select", "GS110"], "--select: there is no rule 'GS110'. Did you mean GS10"),
        (["a.pt", "--format", "consice"], "Did you mean 'concise'?"),
        (["a.pt", "--output", "concise"], "FORMAT:PATH"),
        (["a.pt", "--output", "concise:digits.npz", *DATA], "inputs are never modified"),
    ],
)
def test_what_cannot_be_served_is_one_line(arguments: list[str], said: str, capsys):
    assert main(["check", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert said in err
