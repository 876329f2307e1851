"""What can be done about a model, tried on it and put back."""

from gradscope.repair.checkpoints import Checkpoints
from gradscope.repair.plan import make_plan, warnings_of
from gradscope.repair.treat import Treated, check_names, treat
from gradscope.repair.trial import run_trial
from gradscope.repair.unlabelled import Rescaled, rescale

__all__ = [
    "Checkpoints",
    "Rescaled",
    "Treated",
    "check_names",
    "make_plan",
    "rescale",
    "run_trial",
    "treat",
    "warnings_of",
]
