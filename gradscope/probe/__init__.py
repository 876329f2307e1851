"""Measures gradients, activations and weights of a loaded model. Knows no thresholds."""

from gradscope.probe.reference import reference
from gradscope.probe.run import measure

__all__ = ["measure", "reference"]
