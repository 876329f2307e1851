"""Restart, as a remedy: the suspect layers start again; what they had learned is lost."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch

from gradscope.repair.base import Case, Remedy, Result
from gradscope.repair.recurrent import find_parts
from gradscope.repair.restart import restart
from gradscope.repair.suspects import find_suspects


class Restart(Remedy):
    """Orthogonal weights with the gain of their activation, biases at zero."""

    name: ClassVar[str] = "restart"
    summary: ClassVar[str] = "suspect layers start again"

    def requires(self, case: Case) -> str | None:
        """Always possible."""
        return None

    def apply(self, case: Case) -> Result:
        """On copies of all parameters."""
        copies = {name: t.detach().clone() for name, t in case.tensors.items()}
        found = find_suspects(case.measured, case.causes)
        feeding = tuple(f for f in found.feeding if f.parameter.name in copies)
        suspects = replace(found, feeding=feeding)
        random = torch.Generator().manual_seed(case.seed)
        restart(copies, suspects, random, find_parts(case))
        where = "all layers" if suspects.whole else ", ".join(suspects.layers)
        return Result(copies, (f"restarted: {where}",))
