"""The remedies by their names."""

from __future__ import annotations

from gradscope.errors import OptionError
from gradscope.repair.alpha import Alpha
from gradscope.repair.base import Remedy
from gradscope.repair.batch_norm_fold import BatchNormFold
from gradscope.repair.centre import Centre
from gradscope.repair.gates import KappaGates
from gradscope.repair.identity import Identity
from gradscope.repair.kappa import Kappa
from gradscope.repair.polar import Polar
from gradscope.repair.restarting import Restart
from gradscope.repair.revive import Revive
from gradscope.repair.std_restore import StdRestore
from gradscope.repair.tanh import Tanh
from gradscope.repair.temperature import Temperature

METHODS: dict[str, Remedy] = {
    "kappa": Kappa(),
    "kappa-refit": Kappa(refit=True),
    "kappa-gates": KappaGates(),
    "polar": Polar(),
    "identity": Identity(),
    "centre": Centre(),
    "std-restore": StdRestore(),
    "batch-norm-fold": BatchNormFold(),
    "temperature": Temperature(),
    "revive": Revive(),
    "tanh": Tanh(),
    "alpha": Alpha(),
    "restart": Restart(),
}


def remedy(name: str, alpha: float = 2.0) -> Remedy:
    """The remedy of a name; ``alpha`` is that of the remedy so called.

    Raises:
        OptionError: there is none.
    """
    if name not in METHODS:
        hint = f"Known: {', '.join([*METHODS, 'standardise'])}."
        raise OptionError(f"there is no remedy '{name}'", where="--method", hint=hint)
    return Alpha(alpha) if name == "alpha" else METHODS[name]
