"""``python -m gradscope``, and what ``torchrun -m gradscope`` starts."""

import sys

from gradscope.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
