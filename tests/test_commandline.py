"""Commands that a report prints: they parse, and say what the user's own command said."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace

import pytest

from gradscope.cli.main import main
from gradscope.commandline import command_for, compare_command, fix_command
from gradscope.config import DataSettings, LoadSettings, ProbeSettings, Settings

PLAIN = Settings("a model.pt")
FULL = Settings(
    "dir/net.pt",
    LoadSettings("nets.py:make", {"width": 3}, ("pkg.Net",), True, "ema"),
    DataSettings(
        "x.npz", "v.npz", None, 32, 7, {"": (3, 8), "mask": (8,)}, label_column="y",
        standardise=True,
    ),
    ProbeSettings("mse", 2, "train", "cpu", None, ("logits",), 50, "sgd", 0.02, 0.5),
    limits=("GS101.total=-4",),
)  # fmt: skip


@pytest.mark.parametrize("settings", [PLAIN, FULL], ids=["plain", "every option"])
@pytest.mark.parametrize(
    "make", [command_for, fix_command, lambda s: compare_command(s, "a model-fixed.pt")],
    ids=["inspect", "fix", "compare"],
)  # fmt: skip
def test_commands_parse(settings: Settings, make, capsys: pytest.CaptureFixture[str]):
    """Refused for a file or folder that is not there, and for no option."""
    words = shlex.split(make(settings))
    assert words[0] == "gradscope"
    assert main(words[1:]) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert not re.search("no such option|usage|means nothing|internal error", err, re.IGNORECASE)


def test_what_was_chosen_is_kept():
    text = command_for(FULL)
    for option in ("--draws 2", "--mode train", "--head logits", "--trial 50", "--seed 7",
                   "--trial-optimizer sgd", "--trial-lr 0.02", "--trial-momentum 0.5",
                   "--limit GS101.total=-4", "--samples all", "--batch-size 32", "--loss mse",
                   "--input-shape mask=8", "--label-column y", "--standardise"):  # fmt: skip
        assert option in text
    quick = replace(PLAIN, probe=ProbeSettings(gradients=False))
    assert command_for(quick).endswith(" --no-gradients")


@pytest.mark.parametrize(
    ("model", "out"),
    [("a/net.pt", "a/net-fixed.pt"), ("net", "net-fixed"), ("a.b/net", "a.b/net-fixed")],
)
def test_the_repaired_model_stands_beside_the_original(model: str, out: str):
    words = shlex.split(fix_command(replace(PLAIN, model=model)))
    assert words[-2:] == ["--out", out]
