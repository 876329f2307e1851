"""Optimisers by name, with the settings that a checkpoint keeps of them. Imports no torch."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """One of torch's optimisers.

    Attributes:
        name: of its class in ``torch.optim``.
        takes: settings that change what it does, beside the rate.
        tells: settings that no other kind has all of, in the order of :data:`KINDS`.
        rates: usual learning rates, the first choice first.
    """

    name: str
    takes: tuple[str, ...]
    tells: tuple[str, ...]
    rates: tuple[float, ...] = (1e-3, 1e-2, 1e-4)


_ADAM = ("betas", "eps", "weight_decay", "amsgrad")

KINDS: Mapping[str, Kind] = {
    "sgd": Kind("SGD", ("momentum", "dampening", "weight_decay", "nesterov"), ("nesterov",),
                (1e-2, 1e-1, 1e-3)),
    "rmsprop": Kind("RMSprop", ("alpha", "eps", "weight_decay", "momentum", "centered"),
                    ("alpha", "centered")),
    "nadam": Kind("NAdam", ("betas", "eps", "weight_decay", "momentum_decay",
                            "decoupled_weight_decay"), ("betas", "momentum_decay")),
    "adam": Kind("Adam", _ADAM, ("betas", "amsgrad")),
    "adamw": Kind("AdamW", _ADAM, ("betas", "amsgrad")),
    "radam": Kind("RAdam", ("betas", "eps", "weight_decay", "decoupled_weight_decay"),
                  ("betas", "eps", "decoupled_weight_decay")),
    "adadelta": Kind("Adadelta", ("rho", "eps", "weight_decay"), ("rho",)),
    "adagrad": Kind("Adagrad", ("lr_decay", "weight_decay", "initial_accumulator_value", "eps"),
                    ("lr_decay", "initial_accumulator_value")),
}  # fmt: skip
"""Adamax has nothing that tells it from others, and is none of them."""


CHOICES = ("adam", "adamw", "sgd", "rmsprop")
"""Those that can be asked for by name."""

_FLAGS = frozenset(["nesterov", "amsgrad", "centered", "decoupled_weight_decay"])
_BELOW = {"momentum": 1.0, "rho": 1.0, "alpha": 1.0}
"""From where on a setting lets every step grow, or torch refuses it; others: from 1000."""

_SHOWN = {"momentum": 0.0, "nesterov": False, "weight_decay": 0.0, "betas": (0.9, 0.999),
          "amsgrad": False, "centered": False}  # fmt: skip
"""Settings that are told where they are not these."""


@dataclass(frozen=True)
class Optimiser:
    """An optimiser and its settings.

    Attributes:
        kind: of :data:`KINDS`.
        rate: learning rate; None: it is not known.
        settings: further keywords of its class.
        remark: what had to be decided when it was read.
    """

    kind: str
    rate: float | None
    settings: tuple[tuple[str, object], ...] = ()
    remark: str = ""

    def __str__(self) -> str:
        said = [f"{KINDS[self.kind].name} {'' if self.rate is None else f'{self.rate:g}'}".strip()]
        said += [_said(k, v) for k, v in self.settings if k in _SHOWN and v != _SHOWN[k]]
        return ", ".join(said)

    def with_rate(self, rate: float) -> Optimiser:
        """The same at another rate."""
        return Optimiser(self.kind, rate, self.settings, self.remark)


def _said(name: str, value: object) -> str:
    plain = name.replace("_", " ")
    if isinstance(value, bool):
        return plain
    values = value if isinstance(value, tuple) else (value,)
    return f"{plain} {' '.join(f'{v:g}' for v in values)}"


def usual(kind: str, momentum: float | None = None) -> Optimiser:
    """One that was named, with nothing else known; SGD has momentum 9/10 unless told otherwise."""
    if momentum is None and kind == "sgd":
        momentum = 0.9
    settings = (("momentum", momentum),) if momentum else ()
    return Optimiser(kind, None, settings)


def read_group(group: Mapping[str, object]) -> Optimiser | str:
    """What one of a checkpoint's ``param_groups`` says of its optimiser; or why it says nothing.

    The rate is the one that a schedule began with, where it is kept (``initial_lr``): a trial asks
    whether the model learns, and at the end of a schedule the rate is next to nothing.
    """
    found = next((k for k, v in KINDS.items() if all(t in group for t in v.tells)), None)
    if found is None:
        return "it is none of torch's that are known here"
    remark = ""
    if found == "adam" and _decays_apart(group):
        found = "adamw"
        if "decoupled_weight_decay" not in group:
            remark = "Adam or AdamW: its state is the same, and it decays weights"
    rate, begun = _number(group.get("lr")), _number(group.get("initial_lr"))
    if begun is not None and begun != rate:
        now = "" if rate is None else f", which is {rate:g} now"
        told = f"the rate its schedule began with{now}"
        rate, remark = begun, f"{remark}; {told}" if remark else told
    if rate is None or not 0 < rate < 1e3:
        found_rate = group.get("lr")
        endless = rate is None and type(found_rate) is int  # more digits than Python writes
        return "its rate is beyond all numbers" if endless else f"its rate is {found_rate!r}"[:60]
    settings = {k: v for k in KINDS[found].takes if (v := _setting(k, group)) is not None}
    if settings.get("nesterov") and (not settings.get("momentum") or settings.get("dampening")):
        return "its nesterov has no momentum, or a dampening"
    return Optimiser(found, rate, tuple(settings.items()), remark)


def _decays_apart(group: Mapping[str, object]) -> bool:
    """Whether what looks like Adam is AdamW."""
    told = group.get("decoupled_weight_decay")
    return bool(told) if isinstance(told, bool) else bool(_number(group.get("weight_decay")))


def _setting(name: str, group: Mapping[str, object]) -> object:
    """A value of the right type and range; None: the class's own default."""
    value = group.get(name)
    if name == "betas":
        if not isinstance(value, tuple | list) or len(value) != 2:
            return None
        pair = [_number(v) for v in value]
        return tuple(pair) if all(v is not None and 0 <= v < 1 for v in pair) else None
    if name in _FLAGS:
        return value if isinstance(value, bool) else None
    number = _number(value)
    return number if number is not None and 0 <= number < _BELOW.get(name, 1e3) else None


def _number(value: object) -> float | None:
    """A finite number, also one in a tensor; files may hold anything."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value) if abs(value) <= sys.float_info.max else None
    item = getattr(value, "item", None)
    if getattr(value, "shape", None) == () and callable(item):
        return _number(item())
    return None
