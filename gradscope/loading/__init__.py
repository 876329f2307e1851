"""Opens model files and data. A trust boundary: nothing in a file runs unless the user says so."""

from gradscope.loading.given import hold_model
from gradscope.loading.models import load_model
from gradscope.loading.precision import in_precision
from gradscope.loading.samples import load_sample, load_validation
from gradscope.loading.saving import check_saving, save_like
from gradscope.loading.spread import spread
from gradscope.loading.values import lent_values

__all__ = [
    "check_saving",
    "hold_model",
    "in_precision",
    "lent_values",
    "load_model",
    "load_sample",
    "load_validation",
    "save_like",
    "spread",
]
