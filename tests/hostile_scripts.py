"""TorchScript files that try something. Each builder writes one file; ``CANARY`` is what a file
that runs would leave behind in the folder."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from tests.hostile import CANARY

Records = dict[str, bytes]
Builder = Callable[[Path], Path]
CODE = "code/__torch__.py"


class _Writes(nn.Module):
    """Its ``__setstate__`` writes a file: the plainest attack, made by PyTorch itself."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self.mapped = torch.zeros(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x)

    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return self.path, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.path = state[0]
        self.training = state[1]
        self.mapped = torch.from_file(state[0], True, 10)


def _plain(folder: Path) -> Path:
    path = folder / "model.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(nn.Sequential(nn.Linear(3, 3), nn.Tanh())), path)
    return path


def _setstate(folder: Path) -> Path:
    path = folder / "model.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(_Writes(str(folder / "elsewhere"))), path)
    (folder / "elsewhere").unlink(missing_ok=True)
    return rewrite(path, lambda r: _replace(r, "data.pkl", b"elsewhere", CANARY.encode(), 4))


def _replace(records: Records, name: str, old: bytes, new: bytes, length_bytes: int) -> Records:
    """Change a text within a pickle, and its length before it."""
    data = records[name]
    at = data.index(old)
    start = data.rindex(b"X", 0, at)
    length = int.from_bytes(data[start + 1 : start + 1 + length_bytes], "little")
    changed = (length + len(new) - len(old)).to_bytes(length_bytes, "little")
    body = data[:at] + new + data[at + len(old) :]
    records[name] = body[: start + 1] + changed + body[start + 1 + length_bytes :]
    return records


def rewrite(path: Path, change: Callable[[Records], Records], *, root: str = "model/") -> Path:
    """Change the records of a saved file."""
    with zipfile.ZipFile(path) as archive:
        records = {e.filename.partition("/")[2]: archive.read(e) for e in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in change(records).items():
            archive.writestr(root + name if root else name, data)
    return path


def recoded(old: str, new: str) -> Builder:
    """A sound script whose code has ``old`` replaced; ``PATH`` in ``new`` is the canary's."""

    def build(folder: Path) -> Path:
        def change(records: Records) -> Records:
            names = [n for n in records if n.endswith(".py") and old.encode() in records[n]]
            assert names, old
            text = new.replace("PATH", str(folder / CANARY))
            records[names[0]] = records[names[0]].replace(old.encode(), text.encode(), 1)
            return records

        return rewrite(_plain(folder), change)

    return build


def changed(change: Callable[[Records], Records], *, root: str = "model/") -> Builder:
    """A sound script with other records."""
    return lambda folder: rewrite(_plain(folder), change, root=root)


def _with(**records: bytes) -> Callable[[Records], Records]:
    return lambda known: {**known, **{k.replace("__", "/"): v for k, v in records.items()}}


def _in_tanh(statement: str) -> Builder:
    return recoded("    return torch.tanh(input)", f"    {statement}\n    return torch.tanh(input)")


def _setstate_with(body: str) -> Builder:
    """The class of tanh gets a ``__setstate__`` of this body; its state is a dictionary."""
    method = (
        "  def __setstate__(self: __torch__.torch.nn.modules.activation.Tanh,\n"
        f"    state: Dict[str, Optional[bool]]) -> NoneType:\n    {body}\n    return None\n"
    )
    return recoded("  def forward(self", method + "  def forward(self")


def _appended(data: bytes, name: str) -> Builder:
    def build(folder: Path) -> Path:
        path = _plain(folder)
        with zipfile.ZipFile(path, "a") as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            root = archive.namelist()[0].partition("/")[0]
            archive.writestr(f"{root}/{name}", data)
        return path

    return build


def _forged_memo(records: Records) -> Records:
    data = records["data.pkl"]
    at = data.index(b"q\x00")
    records["data.pkl"] = data[:at] + b"r\xff\xff\xff\x7f" + data[at + 2 :]
    return records


def _forged_size(records: Records) -> Records:
    records["data.pkl"] = records["data.pkl"].replace(b"K\x09", b"K\xff", 1)
    return records


def _bomb(folder: Path) -> Path:
    path = _plain(folder)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        root = archive.namelist()[0].partition("/")[0]
        archive.writestr(f"{root}/code/bomb.py", b"#" * 80_000_000)
    return path


def _global(module: str, name: str) -> bytes:
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + b")\x81}b."


def _encrypted(folder: Path) -> Path:
    path = _plain(folder)
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02")
    data[at + 8] |= 1
    path.write_bytes(bytes(data))
    return path


_CALL = "torch.from_file('PATH', True, 10)"
HOSTILE_SCRIPTS: dict[str, Builder] = {
    # at loading
    "script: __setstate__ writes a file": _setstate,
    "script: endless __setstate__": _setstate_with("while True:\n      pass"),
    "script: __setstate__ calls": _setstate_with("_0 = torch.zeros([1000000, 1000000])"),
    "script: __setstate__ calls a method": _setstate_with("_0 = (self).forward(CONSTANTS.c0, )"),
    "script: default argument": recoded("input: Tensor)", f"input: Tensor, y: Tensor={_CALL})"),
    "script: class constant": recoded(
        "  training : bool\n", f"  training : bool\n  z : Final[Tensor] = {_CALL}\n"
    ),
    # at the first call
    "script: from_file in forward": _in_tanh(f"_0 = {_CALL}"),
    "script: save in forward": _in_tanh("torch.save(input, 'PATH')"),
    "script: method of a string": _in_tanh("_0 = ('PATH').from_file(True, 10, )"),
    "script: getattr of an operation": _in_tanh("_0 = getattr('PATH', 'from_file')(True, 10)"),
    "script: function under another name": _in_tanh(
        "f = torch.from_file\n    _0 = f('PATH', True, 10)"
    ),
    "script: module under another name": _in_tanh("t = torch\n    _0 = t.from_file('PATH')"),
    "script: method that is called from_file": recoded(
        "  def forward(self",
        "  def from_file(self, x: bool) -> NoneType:\n    return None\n"
        "  def forward(self: __torch__.torch.nn.modules.activation.Tanh, a: Tensor) -> Tensor:\n"
        "    _0 = ('PATH').from_file(True, )\n    return a\n  def forward1(self",
    ),
    "script: ops namespace": _in_tanh("_0 = ops.aten.from_file('PATH', True, 10)"),
    "script: custom namespace": _in_tanh("_0 = ops.mylib.run(input)"),
    "script: remote call": _in_tanh("_0 = ops.prim.rpc_sync('host', 'f')"),
    "script: Python operation": _in_tanh("_0 = ops.prim.PythonOp(input)"),
    "script: extension class": _in_tanh("_0 = __torch__.torch.classes.mylib.Shell('touch')"),
    "script: eval": _in_tanh("_0 = eval('1')"),
    "script: lambda": _in_tanh("_0 = (lambda: torch)()"),
    "script: import": recoded("class Tanh", "import os\nclass Tanh"),
    "script: decorator": recoded("  def forward", "  @torch.save\n  def forward"),
    "script: odd base class": recoded("Tanh(Module)", "Tanh(torch.classes.X)"),
    "script: code that is no code": recoded("class Tanh", "class class"),
    "script: carriage return": recoded("class Tanh", "# a\rimport os\rclass Tanh"),
    "script: nested too deeply": _in_tanh(f"_0 = {'-' * 3000}1"),
    "script: too many brackets": _in_tanh(f"_0 = {'(' * 3000}1{')' * 3000}"),
    # pickles
    "script: extension object": changed(
        lambda r: {**r, "data.pkl": _global("__torch__.torch.classes.mylib", "Shell")}
    ),
    "script: os.system in the pickle": changed(
        lambda r: {**r, "data.pkl": b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R."}
    ),
    "script: cyclic object": changed(
        lambda r: {
            **r,
            "data.pkl": b"\x80\x02c__torch__\nNet\n)\x81q\x00}X\x01\x00\x00\x00ah\x00sb.",
        }
    ),
    "script: constants nested too deeply": changed(
        lambda r: {**r, "constants.pkl": b"\x80\x02)" + b"\x85" * 390 + b"."}
    ),
    "script: forged memo": changed(_forged_memo),
    "script: forged size": changed(_forged_size),
    "script: pickle protocol 4": changed(lambda r: {**r, "data.pkl": pickle.dumps([1], 4)}),
    # archives
    "script: zip bomb": _bomb,
    "script: record twice": _appended(b"\x80\x02N.", "data.pkl"),
    "script: record twice, other case": _appended(b"\x80\x02N.", "DATA.pkl"),
    "script: path that leaves": changed(_with(**{"code__..__..__evil.py": b""})),
    "script: absolute path": changed(lambda r: {**r, "/etc/evil": b""}),
    "script: no common root": changed(lambda r: {**r, "x/y": b""}, root=""),
    "script: encrypted": _encrypted,
    "script: mobile bytecode": changed(_with(**{"bytecode.pkl": b"\x80\x02)."})),
    "script: no version": changed(lambda r: {k: v for k, v in r.items() if k != "version"}),
    "script: no code": changed(lambda r: {k: v for k, v in r.items() if not k.startswith("code")}),
}
