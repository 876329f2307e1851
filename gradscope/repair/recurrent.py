"""Recurrent layers, whatever form of file holds them, and the trajectory that they follow.

Found by the names of their weights (``weight_ih_l0``, ``weight_hh_l0_reverse``, ...: whole modules,
scripts, exported programs, state_dicts) or by the kind of their node (ONNX, whose gates stand in
another order, with both biases in one tensor). The trajectory is computed here, step by step in
float64, since the gates of a fused layer cannot be seen from outside.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gradscope.fusion import switched_off_fusion
from gradscope.repair.base import Case

GATES = {"LSTM": ("input", "forget", "cell", "output"), "GRU": ("reset", "update", "new"),
         "RNN_TANH": ("state",), "RNN_RELU": ("state",)}  # fmt: skip
"""Blocks of rows, in torch's order."""

_ONNX = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN_TANH": (0,), "RNN_RELU": (0,)}
"""Where torch's blocks stand in an ONNX file."""

_NAME = re.compile(r"(?P<path>.*?)weight_ih_l(?P<depth>\d+)(?P<side>_reverse)?")
_BLOCKS = {4: "LSTM", 3: "GRU", 1: "RNN"}
_aten = torch.ops.aten

Own = Callable[[str], torch.Tensor]


@dataclass(frozen=True)
class Part:
    """One layer and direction of a recurrent module.

    Attributes:
        module: what its layers and directions have in common.
        kind: key of :data:`GATES`.
        names: of W_ih, W_hh and, where there are biases, b_ih and b_hh (in ONNX one for both).
        hidden: units.
        backward: reads the sequence from its end.
        depth: number of the layer.
        onnx: whether its blocks stand in ONNX's order.
    """

    module: str
    kind: str
    names: tuple[str, ...]
    hidden: int
    backward: bool
    depth: int
    onnx: bool = False

    def read(self, own: Own) -> list[torch.Tensor]:
        """W_ih, W_hh and, where there are biases, b_ih and b_hh, in torch's order of blocks."""
        values = [own(n).detach() for n in self.names]
        if not self.onnx:
            return values
        parts = [*values[:2], *(half for b in values[2:] for half in b.chunk(2))]
        return [self._ordered(v, _ONNX[self.kind]) for v in parts]

    def write(self, values: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        """The same, as the file has it, by name."""
        if self.onnx:
            order = _ONNX[self.kind]
            back = tuple(order.index(i) for i in range(len(order)))
            turned = [self._ordered(v, back) for v in values]
            values = [*turned[:2], *([torch.cat(turned[2:])] if len(turned) == 4 else [])]
        return dict(zip(self.names, values, strict=True))

    def _ordered(self, value: torch.Tensor, order: tuple[int, ...]) -> torch.Tensor:
        blocks = torch.split(value, self.hidden)
        return torch.cat([blocks[i] for i in order])


def find_parts(case: Case) -> list[Part]:
    """All that may be changed, in the order of the model."""
    found = [p for name in case.tensors if (p := _named(case, name)) is not None]
    return found or list(_nodes(case))


def _named(case: Case, name: str) -> Part | None:
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    path, end = match["path"], f"l{match['depth']}{match['side'] or ''}"
    names = [name, f"{path}weight_hh_{end}"]
    biases = [f"{path}bias_{side}_{end}" for side in ("ih", "hh")]
    every = {n for p in case.measured.parameters for n in p.names}
    names += [b for b in biases if b in every]
    if f"{path}weight_hr_{end}" in every or any(n not in case.tensors for n in names):
        return None
    return _part(case, path, tuple(names), match["side"] is not None, int(match["depth"]), False)


def _nodes(case: Case) -> Iterator[Part]:
    """Layers of ONNX: one node each, its directions beside one another."""
    kinds = {layer.name: layer.kind for layer in case.measured.layers}
    groups: dict[str, list[str]] = {}
    # W and R in their order, and the biases behind them.
    for p in sorted(case.measured.parameters, key=lambda p: -len(p.shape)):
        if kinds.get(p.layer) in ("LSTM", "GRU", "RNN"):
            groups.setdefault(p.layer, []).append(p.name)
    for layer, names in groups.items():
        whole = all(n in case.tensors for n in names)
        if whole and [case.tensors[n].dim() for n in names] in ([2, 2], [2, 2, 1]):
            module, backward = layer.partition("[")[0], layer.endswith("[reverse]")
            part = _part(case, module, tuple(names), backward, 0, True)
            if part is not None:
                yield part


def _part(
    case: Case, module: str, names: tuple[str, ...], backward: bool, depth: int, onnx: bool
) -> Part | None:
    recurrent = case.tensors[names[1]]
    hidden = recurrent.shape[1]
    kind = _BLOCKS.get(recurrent.shape[0] // max(1, hidden))
    if kind is None:
        return None
    if kind == "RNN":
        kinds = {s.kind for s in case.measured.sites if names[1] in s.parameters}
        kind = "RNN_RELU" if "relu" in kinds else "RNN_TANH"
    return Part(module, kind, names, hidden, backward, depth, onnx)


def why_none(case: Case, wanted: str) -> str:
    """Why none of the kinds that are ``wanted`` was found."""
    if found := find_parts(case):
        return f"{found[0].names[1]} belongs to no {wanted}"
    gates = sorted({s.id for s in case.measured.sites if s.gate})
    if gates:
        return f"{gates[0]}: only whole LSTM, GRU and RNN layers without projection, unfrozen"
    return "no recurrent layer was found"


FIRST = 4
"""Steps in which a layer shows whether it is torch's."""

OTHERWISE = "packed sequences, first states, or gates that are not torch's"
"""Why the trajectory of a layer is not known."""


def inputs_of(case: Case, part: Part) -> Iterator[torch.Tensor]:
    """What enters a layer, batch by batch, as (steps, samples, features) in float64.

    Nothing where the layer does not compute what torch's would.
    """
    values = part.read(lambda n: case.tensors[n])
    case.trainee.set_training(False)
    for batch in case.data.some():
        # A fused layer shows no products.
        with torch.no_grad(), switched_off_fusion(), _Products(values[:2]) as seen:
            case.trainee.call(batch)
        entering, carried = seen.rows
        if not entering or not carried:
            return
        samples = len(carried[0])
        rows = torch.cat(entering)
        if any(len(c) != samples for c in carried) or len(rows) != samples * len(carried):
            return
        x = rows.reshape(-1, samples, rows.shape[1]).double().cpu()
        x = x.flip(0) if part.backward else x
        if not _follows(case, part, x, carried):
            return
        yield x


class _Products(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While active, keeps what is multiplied with matrices of these values."""

    def __init__(self, matrices: list[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.rows: tuple[list[torch.Tensor], ...] = tuple([] for _ in matrices)
        self._matrices = matrices

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        packet = func.overloadpacket
        if packet in (_aten.addmm, _aten.mm):
            x, turned = args[-2:]
            self._note(x, turned.T)
        elif packet is _aten.bmm and not args[1].stride(0):  # one matrix for all steps
            self._note(args[0].flatten(0, -2), args[1][0].T)
        elif packet is _aten.linear:
            self._note(args[0].flatten(0, -2), args[1])
        return func(*args, **(kwargs or {}))

    def _note(self, x: torch.Tensor, weight: torch.Tensor) -> None:
        for matrix, rows in zip(self._matrices, self.rows, strict=True):
            if weight.shape == matrix.shape and torch.equal(weight, matrix):
                rows.append(x.detach().clone())
                return


def _follows(case: Case, part: Part, x: torch.Tensor, carried: list[torch.Tensor]) -> bool:
    """Whether the first states are those that torch's layer has; where gates saturate, later ones
    are what rounding makes of them."""
    x = x.flip(0)[:FIRST].flip(0) if part.backward else x[:FIRST]
    outputs = run(part, x, lambda n: case.tensors[n])[0]
    outputs = outputs.flip(0) if part.backward else outputs
    states = torch.stack([c.double().cpu() for c in carried[:FIRST]])
    expected = torch.cat([torch.zeros_like(outputs[:1]), outputs[:-1]])
    finite = torch.isfinite(expected).all()
    return bool(finite) and bool(((states - expected).abs() < 1e-2).double().mean() > 0.9)


def run(part: Part, x: torch.Tensor, own: Own) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """(outputs, pre-activations per gate), each over steps.

    Args:
        part: which layer.
        x: (steps, samples, features).
        own: value of a parameter by its name.
    """
    w_ih, w_hh, *biases = (v.double().cpu() for v in part.read(own))
    b_ih, b_hh = biases or (torch.zeros(len(w_ih)).double(),) * 2
    h = torch.zeros(x.shape[1], part.hidden, dtype=torch.float64)
    c, outputs, kept = h, [], []
    for step in x.flip(0) if part.backward else x:
        before = step @ w_ih.T + b_ih, h @ w_hh.T + b_hh
        h, c, z = _step(part.kind, *before, h, c)
        outputs.append(h)
        kept.append(z)
    result = torch.stack(outputs)
    gates = [torch.stack(pieces) for pieces in zip(*kept, strict=True)]
    return (result.flip(0) if part.backward else result), gates


def _step(
    kind: str, a: torch.Tensor, b: torch.Tensor, h: torch.Tensor, c: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    if kind == "LSTM":
        i, f, g, o = (a + b).chunk(4, dim=1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c, [i, f, g, o]
    if kind == "GRU":
        (ar, az, an), (br, bz, bn) = a.chunk(3, dim=1), b.chunk(3, dim=1)
        r, z = ar + br, az + bz
        n = an + r.sigmoid() * bn
        return (1 - z.sigmoid()) * n.tanh() + z.sigmoid() * h, c, [r, z, n]
    z = a + b
    return (z.tanh() if kind == "RNN_TANH" else z.relu()), c, [z]
