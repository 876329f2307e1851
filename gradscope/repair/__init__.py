"""What can be done about a model, tried on it and put back."""

from gradscope.repair.plan import make_plan, warnings_of
from gradscope.repair.treat import Treated, treat
from gradscope.repair.trial import run_trial

__all__ = ["Treated", "make_plan", "run_trial", "treat", "warnings_of"]
