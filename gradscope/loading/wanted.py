"""What a model takes: from its own declaration, else from the signature of ``forward``."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace

import torch

from gradscope.model import Input, LoadedModel

PLAIN = frozenset({int, float, bool, str, "int", "float", "bool", "str"})
"""Annotations of arguments that are no tensors."""


@dataclass(frozen=True)
class Wanted:
    """The inputs of a model.

    Attributes:
        inputs: in the order of the positional arguments.
        declared: the model names them by itself, so they are passed by position.
        positional: how many at the front can only be passed by position.
        more: ``*args`` takes any number.
        any_name: ``**kwargs`` takes any name.
    """

    inputs: tuple[Input, ...] = ()
    declared: bool = False
    positional: int = 0
    more: bool = False
    any_name: bool = False

    @property
    def names(self) -> list[str]:
        """Of all inputs."""
        return [i.name for i in self.inputs]

    @property
    def required(self) -> list[str]:
        """Of those that the model does not run without."""
        return [i.name for i in self.inputs if i.required]

    @property
    def most(self) -> float:
        """How many arguments it takes by position."""
        return float("inf") if self.more else len(self.inputs)

    @property
    def values(self) -> str:
        """The option that gives the plain arguments, ready to be filled in."""
        plain = [i.name for i in self.inputs if i.plain and i.required]
        return " ".join(f"--input-value {n}=VALUE" for n in plain)

    def find(self, name: str) -> Input | None:
        """An input by name."""
        return next((i for i in self.inputs if i.name == name), None)

    def __str__(self) -> str:
        parts = [describe(i) for i in self.inputs]
        parts += ["*args"] * self.more + ["**kwargs"] * self.any_name
        return ", ".join(parts) or "nothing that is known"


def wanted_by(model: LoadedModel) -> Wanted:
    """What the model declares, or what its ``forward`` says."""
    if model.inputs is not None:
        return Wanted(model.inputs, declared=True)
    return signature_of(model.module) if model.module is not None else Wanted()


def signature_of(module: torch.nn.Module, deep: int = 4) -> Wanted:
    """The parameters of ``forward``; a wrapper that passes on whatever it gets knows no names."""
    try:
        parameters = list(inspect.signature(module.forward).parameters.values())
    except (TypeError, ValueError):
        return Wanted(more=True)
    kinds = inspect.Parameter
    named = [p for p in parameters if p.kind not in (kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD)]
    variable = len(parameters) - len(named)
    children = list(module.children())
    if (
        variable and not named and len(children) == 1 and deep
    ):  # a wrapper: what it passes on has names
        inner = signature_of(children[0], deep - 1)
        takes_names = any(p.kind is kinds.VAR_KEYWORD for p in parameters)
        return inner if takes_names else replace(inner, positional=len(inner.inputs))
    return Wanted(
        tuple(
            Input(p.name, required=p.default is kinds.empty, plain=_is_plain(p.annotation))
            for p in named
        ),
        positional=sum(p.kind is kinds.POSITIONAL_ONLY for p in named),
        more=any(p.kind is kinds.VAR_POSITIONAL for p in parameters),
        any_name=any(p.kind is kinds.VAR_KEYWORD for p in parameters),
    )


def _is_plain(annotation: object) -> bool:
    return isinstance(annotation, str | type) and annotation in PLAIN


def describe(wanted: Input) -> str:
    """``image (N, 3, 224, 224) float32``, as far as it is known."""
    parts = [wanted.name, *["(a plain value)"] * wanted.plain]
    if wanted.shape is not None:
        sizes = [("N" if i == 0 else "any") if s is None else str(s)
                 for i, s in enumerate(wanted.shape)]  # fmt: skip
        parts.append(f"({', '.join(sizes)})")
    if wanted.dtype is not None:
        parts.append(type_name(wanted.dtype))
    if not wanted.required:
        parts.append("(optional)")
    return " ".join(parts)


def type_name(dtype: torch.dtype) -> str:
    """``float32``."""
    return str(dtype).removeprefix("torch.")
