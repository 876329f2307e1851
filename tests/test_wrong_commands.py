"""Command lines as a careless or hostile user writes them: one line on stderr and status 2, nothing
written, no traceback, no hang."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from gradscope.cli.main import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good model and samples, and what the system has that is no file."""
    path = tmp_path_factory.mktemp("wrong")
    torch.manual_seed(0)
    torch.save(nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)), path / "m.pt")
    np.savez(path / "d.npz", x=np.ones((8, 4), np.float32), y=np.arange(8) % 2)
    (path / "empty").write_bytes(b"")
    (path / "text").write_text("gradscope\n")
    (path / "folder").mkdir()
    os.mkfifo(path / "pipe")
    (path / "loop").symlink_to("loop")
    (path / "gone").symlink_to("nowhere")
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(path)  # a socket's name must be short
        server.bind("socket")
        os.chdir(here)
    return path


NO_FILES = (
    "empty", "text", "folder", "pipe", "loop", "gone", "socket", "/dev/zero", "/dev/null", "absent",
    "", ".", "/", "\udcff\udcfe.pt", "\N{PILE OF POO}.pt", "a\nb", "x" * 5000, "m.pt/x",
    "~", "-", "http://localhost/m.pt",
)  # fmt: skip
DATA = ("--data", "d.npz")
LINES: dict[str, list[str]] = {
    **{f"inspect {p[:20]!r}": ["inspect", p] for p in NO_FILES},
    **{f"--data {p[:20]!r}": ["inspect", "m.pt", "--data", p]
       for p in NO_FILES if p not in ("", ".")},
    **{f"fix {p[:20]!r}": ["fix", p, *DATA, "--out", "o.pt"] for p in NO_FILES},
    **{
        f"--baseline {p[:20]!r}": ["check", "m.pt", *DATA, "--baseline", p]
        for p in NO_FILES if p not in ("-",)
    },
    **{f"--out {p[:20]!r}": ["inspect", "m.pt", *DATA, "--out", p]
       for p in ("folder", "pipe", "/dev/full", "/dev/null", "", ".", "/", "x" * 5000, "absent/o",
                 "m.pt", "d.npz", "loop/x", "socket")},
    **{f"fix --out {p[:20]!r}": ["fix", "m.pt", *DATA, "--out", p]
       for p in ("pipe", "/dev/full", "/", "x" * 5000, "absent/o", "m.pt", "d.npz", "socket")},
    **{f"--samples {n[:20]}": ["inspect", "m.pt", *DATA, "--samples", n]
       for n in ("-1", "0", "nan", "1e9", "9" * 400, "", "\N{ARABIC-INDIC DIGIT THREE}x", "0x10")},
    **{f"--seed {n[:20]}": ["inspect", "m.pt", "--seed", n] for n in ("-1", "nan", "9" * 40)},
    **{f"threshold {t[:30]}": ["inspect", "m.pt", *DATA, "--threshold", t]
       for t in ("GS101.total=nan", "GS101.total=inf", "GS101.total=" + "9" * 400, "GS101.total=",
                 "=1", "GS999.x=1", "GS101.total=-1=2", "\N{PILE OF POO}=1", "")},
    **{f"rule {r[:20]!r}": ["rule", r] for r in ("GS999", "", "x" * 5000, "\udcff", "-1")},
    "fix without data": ["fix", "m.pt"],
    "fix, epochs -1": ["fix", "m.pt", *DATA, "--out", "o.pt", "--epochs", "-1"],
    "fix, lr nan": ["fix", "m.pt", *DATA, "--out", "o.pt", "--lr", "nan"],
    "fix, lr -1": ["fix", "m.pt", *DATA, "--out", "o.pt", "--lr", "-1"],
    "fix, method": ["fix", "m.pt", *DATA, "--out", "o.pt", "--method", "magic"],
    "check, tolerance nan": ["check", "m.pt", *DATA, "--baseline", "b.json", "--tolerance", "nan"],
    "a command that is none": ["\N{PILE OF POO}"],
    "an option that is none": ["--nonsense"],
    "a NUL": ["inspect", "a\0b"],
    "no data": ["inspect", "m.pt", "--data", ""],
    "a NUL in data": ["inspect", "m.pt", "--data", "a\0b"],
    "a NUL in out": ["inspect", "m.pt", *DATA, "--out", "a\0b"],
    "twenty commands": ["inspect", "check"] * 10,
}  # fmt: skip


@pytest.mark.parametrize("name", LINES)
def test_one_line_and_status_2(name: str, folder: Path, monkeypatch, capfd) -> None:
    monkeypatch.chdir(folder)
    before = sorted(os.listdir())
    status = main(LINES[name])
    said = capfd.readouterr()
    lines = said.err.splitlines()

    assert status == 2, (said.out[-300:], said.err)
    assert len(lines) == 1, said.err
    assert "internal error" not in said.err
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize(
    ("command", "option", "instead"),
    [
        ("inspect", "--shard", "--device-map"),
        ("check", "--shard", "--device-map"),
        ("compare", "--shard", "--device-map"),
        ("fix", "--device-map", "--shard"),
        ("fix", "--dtype", "the type of its file"),
    ],
)
def test_an_option_of_another_command_names_what_to_take_instead(
    command: str, option: str, instead: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "m.pt", option]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"gradscope: No such option: {option}")
    assert instead in said
    assert said.count("\n") == 1
