"""Starts several processes of the command line on this machine, as ``torchrun`` does."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch


def launch(processes: int, words: Sequence[str]) -> dict[int, int] | int:
    """Run a command line in several processes, and wait for all of them.

    Returns:
        by rank, exit codes of those that failed (negative: of the signal that ended it), none if no
        one did; or the signal that ended all of it.
    """
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=processes, run_id=str(os.getpid()),
        rdzv_backend="c10d", rdzv_endpoint="localhost:0", max_restarts=0,
    )  # fmt: skip
    try:
        elastic_launch(config, sys.executable)("-m", "gradscope", *words)
    except ChildFailedError as error:
        return {rank: failure.exitcode for rank, failure in error.failures.items()}
    except SignalException as error:
        return int(error.sigval)
    return {}
