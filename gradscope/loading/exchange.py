"""Logistic activations made tanh, where a form of file holds its activations and not only weights.

sigma(z) = 1/2 + 1/2 tanh(z/2): the weights around them are for whoever asks. All of a model are
exchanged together, in memory here and in the file by ``saving``.
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from gradscope.model import Exchange

_aten = torch.ops.aten
CLASS = b"ctorch.nn.modules.activation\nSigmoid\n"
"""How a pickle names the class, once; every module of it refers to that."""
TARGET = re.compile(rb'"torch\.ops\.aten\.sigmoid\.default"')
"""How an exported program names the operation, at each of its calls."""

IN_CODE = "the logistic function is called by the code of the architecture, not by the file"


def of_modules(module: torch.nn.Module, file: Path) -> Exchange | str:
    """Of a file that holds the module whole."""
    found = [m for m in module.modules() if type(m) is torch.nn.Sigmoid]
    if not found:
        return IN_CODE
    with zipfile.ZipFile(file) as archive:
        pickles = [n for n in archive.namelist() if n.endswith("/data.pkl")]
        known = any(CLASS in archive.read(n) for n in pickles)
    if not known:
        return "its pickle names the class in a way that cannot be rewritten"

    def swap(tanh: bool) -> None:
        for m in found:
            # Not another object in its place: who holds the module by its path goes on holding it.
            m.__class__ = torch.nn.Tanh if tanh else torch.nn.Sigmoid  # type: ignore[assignment]

    return Exchange(len(found), swap)


def of_program(module: Any, recurrent: bool) -> Exchange | str:
    """Of an exported program: its nodes."""
    if not isinstance(module, torch.fx.GraphModule) or recurrent:
        return "its logistic functions are those of gates"
    old, new = _aten.sigmoid.default, _aten.tanh.default
    nodes = [n for n in module.graph.nodes if n.op == "call_function" and n.target is old]
    if not nodes:
        return "it calls no logistic function"

    def swap(tanh: bool) -> None:
        for node in nodes:
            node.target = new if tanh else old
        module.recompile()

    return Exchange(len(nodes), swap)


def in_pickle(data: bytes) -> bytes:
    """The pickle of a module with one class for the other: they have the same state."""
    return data.replace(CLASS, CLASS.replace(b"Sigmoid", b"Tanh"))


def in_program(data: bytes) -> bytes:
    """The JSON of an exported program with one operation for the other."""
    return TARGET.sub(b'"torch.ops.aten.tanh.default"', data)
