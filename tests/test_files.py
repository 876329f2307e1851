"""What an output may be called: never what would change an input."""

from __future__ import annotations

from pathlib import Path

import pytest

from gradscope.errors import OutputError
from gradscope.files import check_target


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("model.pt", "nets.py", "shards/0.npz"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    Path("link.pt").symlink_to("model.pt")
    return tmp_path


@pytest.mark.parametrize(
    ("target", "read"),
    [
        ("model.pt", "model.pt"),
        ("./model.pt", "model.pt"),
        ("link.pt", "model.pt"),
        ("model.pt", "link.pt"),
        ("nets.py", "nets.py:factory"),
        ("shards/0.npz", "shards"),
        ("shards/report.json", "shards"),  # the next run would read it
    ],
)
def test_an_input_is_never_written_to(folder: Path, target: str, read: str):
    with pytest.raises(OutputError, match=r"--out: .* is an input of this run"):
        check_target(target, inputs=[None, read], option="--out")


@pytest.mark.parametrize(
    ("target", "read"),
    [("new.pt", "model.pt"), ("report.json", "shards"), ("link.pt", "nets.py:model"),
     ("factory", "nets.py:factory"), ("model.pt", "package.module:factory")],
)  # fmt: skip
def test_everything_else_is(folder: Path, target: str, read: str):
    check_target(target, inputs=[None, read], option="--out")
