"""Requests that cannot be served: each is one line on stderr, status 2, and nothing is written.

A table of name to arguments, given a folder with ``model.pt``, ``state.pt``, ``data.npz``,
``factory.py`` and what :func:`bad_files` makes.
"""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

FACTORY = """
import torch
from torch import nn


def net(width=3):
    return nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 2))


def broken(width=3):
    raise RuntimeError("broken on purpose")


def no_module():
    return 7


def batches():
    yield torch.zeros(5, 4), torch.zeros(5, dtype=torch.long)


def raising():
    raise ValueError("raised on purpose")


def raising_later():
    yield torch.zeros(5, 4)
    raise ValueError("raised on purpose")


def nothing():
    return []


def texts():
    return ["a", "b"]


constant = 3
"""


class Touch:
    """Leaves a file behind if it is unpickled by something that runs what it finds."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch '{self.target}'",)


def network() -> nn.Sequential:
    """Small enough to be examined in no time."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 2))


def good_files(folder: Path) -> None:
    """What a request that can be served needs."""
    net = network()
    torch.save(net, folder / "model.pt")
    torch.save(net.state_dict(), folder / "state.pt")
    random = np.random.default_rng(0)
    x = random.standard_normal((20, 4)).astype(np.float32)
    np.savez(folder / "data.npz", x=x, y=np.arange(20) % 2)
    (folder / "factory.py").write_text(FACTORY, encoding="utf-8")


def bad_files(folder: Path) -> None:
    """Models and data that are not what they should be."""
    whole = (folder / "model.pt").read_bytes()
    (folder / "empty.pt").write_bytes(b"")
    (folder / "truncated.pt").write_bytes(whole[: len(whole) // 2])
    (folder / "text.pt").write_text("import torch\n", encoding="utf-8")
    (folder / "noise.pt").write_bytes(bytes(range(256)) * 20)
    with zipfile.ZipFile(folder / "zip.pt", "w") as archive:
        archive.writestr("a.txt", "nothing")
    torch.save({"epoch": 3}, folder / "no_tensors.pt")
    torch.save([1, 2], folder / "list.pt")
    (folder / "attack.pkl").write_bytes(pickle.dumps(Touch(folder / "touched"), protocol=2))
    torch.save({"weight": Touch(folder / "touched")}, folder / "attack.pt")
    (folder / "adir").mkdir()
    x = np.zeros((20, 4), dtype=np.float32)
    np.savez(folder / "wide.npz", x=np.zeros((20, 5), dtype=np.float32))
    np.savez(folder / "strings.npz", x=np.array(["a", "b"]))
    np.savez(folder / "objects.npz", x=np.array([{}, {}], dtype=object))
    np.savez(folder / "none.npz", x=x[:0])
    np.savez(folder / "nothing.npz")
    np.savez(folder / "labels.npz", x=x, y=np.zeros(7, dtype=np.int64))
    (folder / "truncated.npz").write_bytes((folder / "data.npz").read_bytes()[:100])
    (folder / "table.csv").write_text("a,b,c,d,y\n1,2,3,4,u\n5,6,7,8,v\n", encoding="utf-8")
    (folder / "other.csv").write_text("a,b,c,d,y\n1,2,3,4,w\n", encoding="utf-8")
    (folder / "gaps.csv").write_text("a,b,c,d\n1,2,3,4\n5,6,,8\n", encoding="utf-8")
    (folder / "data.doc").write_text("x", encoding="utf-8")


BAD_OPTIONS: dict[str, list[str]] = {
    "no command": ["examine", "model.pt"],
    "no model": ["inspect"],
    "two models": ["inspect", "model.pt", "model.pt"],
    "unknown option": ["inspect", "model.pt", "--dta", "data.npz"],
    "option without value": ["inspect", "model.pt", "--data"],
    "format": ["inspect", "model.pt", "--format", "xml"],
    "fail-on": ["inspect", "model.pt", "--fail-on", "anything"],
    "mode": ["inspect", "model.pt", "--mode", "test"],
    "samples 0": ["inspect", "model.pt", "--samples", "0"],
    "samples negative": ["inspect", "model.pt", "--samples", "-1"],
    "samples words": ["inspect", "model.pt", "--samples", "few"],
    "samples fraction": ["inspect", "model.pt", "--samples", "1.5"],
    "batch-size 0": ["inspect", "model.pt", "--batch-size", "0"],
    "batch-size words": ["inspect", "model.pt", "--batch-size", "x"],
    "draws 0": ["inspect", "model.pt", "--draws", "0"],
    "trial optimizer alone": ["inspect", "model.pt", "--trial-optimizer", "sgd"],
    "trial lr alone": ["inspect", "model.pt", "--trial-lr", "0.1"],
    "trial optimizer unknown": [
        "inspect",
        "model.pt",
        "--trial",
        "9",
        "--trial-optimizer",
        "lion",
    ],
    "trial lr 0": ["inspect", "model.pt", "--trial", "9", "--trial-lr", "0"],
    "trial lr nan": ["inspect", "model.pt", "--trial", "9", "--trial-lr", "nan"],
    "trial momentum 1": ["inspect", "model.pt", "--trial", "9", "--trial-momentum", "1"],
    "trial momentum of adam": [
        "inspect",
        "model.pt",
        "--trial",
        "9",
        "--trial-optimizer",
        "adam",
        "--trial-momentum",
        "0.9",
    ],
    "no-gradients with trial": ["inspect", "model.pt", "--no-gradients", "--trial", "5"],
    "no-gradients saved": [
        "inspect",
        "model.pt",
        "--no-gradients",
        "--save-gradients",
        "out.safetensors",
    ],
    "seed negative": ["inspect", "model.pt", "--seed", "-1"],
    "seed too large": ["inspect", "model.pt", "--seed", str(2**63)],
    "label-column alone": ["inspect", "model.pt", "--label-column", "-1"],
    "label-column unknown": [
        *("inspect", "model.pt", "--data", "table.csv", "--label-column", "no_such"),
    ],
    "label-column beyond": ["inspect", "model.pt", "--data", "table.csv", "--label-column", "-9"],
    "label-column of no table": [
        *("inspect", "model.pt", "--data", "data.npz", "--label-column", "no_such"),
    ],
    "standardise alone": ["inspect", "model.pt", "--standardise"],
    "standardise a callable": [
        *("inspect", "model.pt", "--data", "factory.py:batches", "--standardise"),
    ],
    "shape of data": ["inspect", "model.pt", "--data", "table.csv", "--input-shape", "5"],
    "shape empty": ["inspect", "model.pt", "--input-shape", ""],
    "shape open": ["inspect", "model.pt", "--input-shape", "3x"],
    "shape zero": ["inspect", "model.pt", "--input-shape", "0x3"],
    "shape words": ["inspect", "model.pt", "--input-shape", "x=wide"],
    "shape commas": ["inspect", "model.pt", "--input-shape", "3,32"],
    "shape twice": ["inspect", "model.pt", "--input-shape", "4", "--input-shape", "5"],
    "shape unknown name": ["inspect", "model.pt", "--input-shape", "nosuch=4"],
    "shape misfit": ["inspect", "model.pt", "--input-shape", "5"],
    "shape absurd": ["inspect", "model.pt", "--input-shape", "1000000x1000000x4"],
    "device unknown": ["inspect", "model.pt", "--device", "abacus"],
    "device without numbers": ["inspect", "model.pt", "--device", "meta"],
    "device absent": ["inspect", "model.pt", "--device", "cuda:77"],
    "loss unknown": ["inspect", "model.pt", "--data", "data.npz", "--loss", "hinge"],
    "loss no module": ["inspect", "model.pt", "--data", "data.npz", "--loss", "no_such:fn"],
    "loss no function": ["inspect", "model.pt", "--data", "data.npz", "--loss", "math:nothing"],
    "loss raises": ["inspect", "model.pt", "--data", "data.npz", "--loss", "math:gcd"],
    "arch no colon": ["inspect", "state.pt", "--arch", "factory.py"],
    "arch no file": ["inspect", "state.pt", "--arch", "nosuch.py:net"],
    "arch no module": ["inspect", "state.pt", "--arch", "no_such_module:net"],
    "arch no factory": ["inspect", "state.pt", "--arch", "factory.py:nosuch"],
    "arch not callable": ["inspect", "state.pt", "--arch", "factory.py:constant"],
    "arch raises": ["inspect", "state.pt", "--arch", "factory.py:broken"],
    "arch no nn.Module": ["inspect", "state.pt", "--arch", "factory.py:no_module"],
    "arch other keys": ["inspect", "state.pt", "--arch", "factory.py:net"],
    "arch-args alone": ["inspect", "state.pt", "--arch-args", "{}"],
    "arch-args no JSON": ["inspect", "state.pt", "--arch", "factory.py:net", "--arch-args", "{a:1"],
    "arch-args no object": [
        "inspect",
        "state.pt",
        "--arch",
        "factory.py:net",
        "--arch-args",
        "[1]",
    ],
    "arch-args unknown": [
        *("inspect", "state.pt", "--arch", "factory.py:net", "--arch-args", '{"depth": 3}'),
    ],
    "allow nonsense": ["inspect", "model.pt", "--allow", "no such thing"],
    "allow no module": ["inspect", "model.pt", "--allow", "no_such_module.Net"],
}

BAD_FILES: dict[str, list[str]] = {
    "model absent": ["inspect", "nosuch.pt"],
    "model folder": ["inspect", "adir"],
    "model empty": ["inspect", "empty.pt"],
    "model truncated": ["inspect", "truncated.pt"],
    "model text": ["inspect", "text.pt"],
    "model noise": ["inspect", "noise.pt"],
    "model other zip": ["inspect", "zip.pt"],
    "model without tensors": ["inspect", "no_tensors.pt"],
    "model list": ["inspect", "list.pt"],
    "model attack": ["inspect", "attack.pt"],
    "model attack, plain": ["inspect", "attack.pkl"],
    "model is data": ["inspect", "data.npz"],
    "data absent": ["inspect", "model.pt", "--data", "nosuch.npz"],
    "data folder": ["inspect", "model.pt", "--data", "adir"],
    "data unknown kind": ["inspect", "model.pt", "--data", "data.doc"],
    "data truncated": ["inspect", "model.pt", "--data", "truncated.npz"],
    "data misfit": ["inspect", "model.pt", "--data", "wide.npz"],
    "data strings": ["inspect", "model.pt", "--data", "strings.npz"],
    "data objects": ["inspect", "model.pt", "--data", "objects.npz"],
    "data no samples": ["inspect", "model.pt", "--data", "none.npz"],
    "data no arrays": ["inspect", "model.pt", "--data", "nothing.npz"],
    "data table with gaps": ["inspect", "model.pt", "--data", "gaps.csv"],
    "data table of noise": ["inspect", "model.pt", "--data", "noise.pt"],
    "val of other classes": ["inspect", "model.pt", "--data", "table.csv", "--val", "other.csv"],
    "data labels misfit": ["inspect", "model.pt", "--data", "labels.npz"],
    "data attack": ["inspect", "model.pt", "--data", "attack.pt"],
    "data no module": ["inspect", "model.pt", "--data", "no_such_module:batches"],
    "data no callable": ["inspect", "model.pt", "--data", "factory.py:nosuch"],
    "data callable raises": ["inspect", "model.pt", "--data", "factory.py:raising"],
    "data callable raises later": ["inspect", "model.pt", "--data", "factory.py:raising_later"],
    "data callable empty": ["inspect", "model.pt", "--data", "factory.py:nothing"],
    "data callable texts": ["inspect", "model.pt", "--data", "factory.py:texts"],
    "val absent": ["inspect", "model.pt", "--data", "data.npz", "--val", "nosuch.npz"],
    "val misfit": ["inspect", "model.pt", "--data", "data.npz", "--val", "wide.npz"],
}

BAD_OUTPUTS: dict[str, list[str]] = {
    f"{option} {name}": ["inspect", "model.pt", "--data", "data.npz", f"--{option}", target]
    for option in ("output", "save-gradients")
    for name, target in {
        "in no folder": "nosuch/out",
        "is a folder": "adir",
        "under a file": "data.npz/out",
        "is the model": "model.pt",
        "is the data": "./data.npz",
        "cannot exist": "/proc/out",
    }.items()
}
