"""In which type each array is wanted; values are never rescaled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from gradscope.errors import DataError
from gradscope.loading.binding import model_dtype, takes_integers
from gradscope.loading.wanted import type_name
from gradscope.model import Input

_UNSIGNED = frozenset({torch.uint16, torch.uint32, torch.uint64})
_BYTE_FLOATS = frozenset({
    torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2, torch.float8_e5m2fnuz,
    torch.float8_e8m0fnu,
})  # fmt: skip
NUMBERS = _UNSIGNED | _BYTE_FLOATS | {
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.complex128,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
}  # fmt: skip
"""Types with one number an element; torch also has some that are bits, or several in a byte."""


@dataclass(frozen=True)
class Types:
    """What a model computes with.

    Attributes:
        dtype: of its floating parameters.
        integers: whether it looks integers up somewhere.
    """

    dtype: torch.dtype
    integers: bool

    @classmethod
    def of(cls, module: torch.nn.Module) -> Types:
        """As the model's layers tell."""
        return cls(model_dtype(module), takes_integers(module))

    def wanted(self, dtype: torch.dtype, *, flags: bool = False) -> torch.dtype:
        """The type for an array of ``dtype``.

        Floating inputs take the model's type. Integers stay (as int64) for a model that looks
        integers up, and become numbers otherwise. So do booleans, unless they are ``flags``: a mask
        of numbers would be added to attention scores.
        """
        if dtype.is_complex:
            return dtype
        if dtype.is_floating_point:
            return self.dtype
        if dtype is torch.bool:
            return dtype if self.integers or flags else self.dtype
        return torch.int64 if self.integers else self.dtype

    def others(self, dtype: torch.dtype) -> tuple[torch.dtype, ...]:
        """What else an array of ``dtype`` may be wanted as."""
        if dtype.is_complex:
            return ()
        return tuple(t for t in (torch.int64, self.dtype) if t is not self.wanted(dtype))


def plan(
    types: Types, columns: Mapping[str, torch.dtype], declared: Mapping[str, Input]
) -> dict[str, torch.dtype]:
    """Array -> type, likeliest; what the model declares goes first."""
    found = {}
    for i, (name, dtype) in enumerate(columns.items()):
        said = declared[name].dtype if name in declared else None
        flags = i > 0 or "mask" in name.lower()
        found[name] = said or types.wanted(dtype, flags=flags)
    return found


def alternatives(
    types: Types, columns: Mapping[str, torch.dtype], planned: Mapping[str, torch.dtype]
) -> Iterator[dict[str, torch.dtype]]:
    """Other types, one array at a time, then all: for a model whose layers do not tell."""
    yield dict(planned)
    changed = {n: types.others(dtype) for n, dtype in columns.items()}
    for name, others in changed.items():
        for other in others:
            if other is not planned[name]:
                yield {**planned, name: other}
    if len(planned) > 1:
        yield {n: next(iter(changed[n]), t) for n, t in planned.items()}


def with_arithmetic(tensor: torch.Tensor) -> torch.Tensor:
    """The same values in a type that torch computes in: unsigned integers as int64, 8 bits of
    floating point as float32.

    Raises:
        ValueError: an integer that int64 cannot hold.
    """
    if tensor.dtype in _BYTE_FLOATS:
        return tensor.to(torch.float32)
    if tensor.dtype not in _UNSIGNED:
        return tensor
    found = tensor.to(torch.int64)
    if tensor.dtype is torch.uint64 and bool((found < 0).any()):
        raise ValueError("it holds integers beyond 64 bits with a sign")
    return found


def cast(tensor: torch.Tensor, dtype: torch.dtype, name: str, where: str) -> torch.Tensor:
    """The values in another type.

    Raises:
        DataError: a fraction where the model takes integers.
    """
    to_integers = not dtype.is_floating_point and not dtype.is_complex
    if tensor.is_floating_point() and to_integers and not is_whole(tensor):
        what = f"the model takes {type_name(dtype)} for '{name}', which holds fractions"
        raise DataError(what, where=where, hint="Save integers.")
    return tensor.to(dtype)


def is_whole(tensor: torch.Tensor) -> bool:
    """Whether floating values are all finite and without fraction, and small enough for int64."""
    numbers = tensor.double()
    return bool(((numbers == numbers.round()) & (numbers.abs() < 2**53)).all())


def turned(name: str, before: torch.dtype, after: torch.dtype) -> str | None:
    """A note, where the kind of number changes."""
    if before.is_floating_point == after.is_floating_point:
        return None
    return f"'{name}' was turned from {type_name(before)} to {type_name(after)}, values unchanged"
