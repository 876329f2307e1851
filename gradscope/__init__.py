"""gradscope: where the gradient of a trained network goes, why, and what to do about it."""

__version__ = "0.1.0"
