"""The remedies by their names."""

from __future__ import annotations

from gradscope.errors import OptionError
from gradscope.repair.base import Remedy
from gradscope.repair.kappa import Kappa
from gradscope.repair.polar import Polar
from gradscope.repair.restarting import Restart
from gradscope.repair.std_restore import StdRestore

METHODS: dict[str, Remedy] = {
    "kappa": Kappa(),
    "kappa-refit": Kappa(refit=True),
    "polar": Polar(),
    "std-restore": StdRestore(),
    "restart": Restart(),
}


def remedy(name: str) -> Remedy:
    """The remedy of a name.

    Raises:
        OptionError: there is none.
    """
    if name not in METHODS:
        hint = f"Known: {', '.join(METHODS)}."
        raise OptionError(f"there is no remedy '{name}'", where="--method", hint=hint)
    return METHODS[name]
