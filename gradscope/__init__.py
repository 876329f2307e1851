"""gradscope: where the gradient of a trained network goes, why, and what to do about it.

``gradscope.inspect(model, sample)`` examines a model from within a program; its arguments and its
:class:`Report` are described in ``gradscope.api``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gradscope.api import Report, inspect

__all__ = ["Report", "__version__", "inspect"]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Imported on use: a program that only names gradscope does not wait for torch."""
    if name in ("Report", "inspect"):
        from gradscope import api

        return getattr(api, name)
    raise AttributeError(f"module 'gradscope' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
