"""``python -m gradscope``, and what ``torchrun -m gradscope`` starts."""

import sys

from gradscope.start import run

if __name__ == "__main__":
    sys.exit(run())
