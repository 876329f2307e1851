"""What can be done about a model, tried on it and put back."""

from gradscope.repair.trial import run_trial

__all__ = ["run_trial"]
