"""What is said where a repair without labels wrote nothing."""

from __future__ import annotations

import math

import pytest

from gradscope.unproven import Tried, why_not

NOTHING = "Not improved: nothing was written. "
LABELS = "Labels in --data let it be trained, and proven on held-out samples."


@pytest.mark.parametrize(
    ("tried", "needing", "said"),
    [
        ([], [], f"No rescaling fits the diagnosis. {LABELS}"),
        ([], ["standardise", "restart"], "standardise and restart would help only with training. "
         f"{LABELS}"),
        ([Tried("tanh", 1.2e-7, "undetermined")], ["restart"],
         "tanh moves the outputs by 1.2e-07 of their size, and the verdict is undetermined after "
         f"undetermined: no better. restart would help only with training. {LABELS}"),
        ([Tried("polar", 1.5, "undetermined")], [], "polar moves the outputs by 1.5 of their "
         f"size, more than 0.1 (--max-drift). {LABELS}"),
        ([Tried("a", 0.751, "healthy"), Tried("b", 0.9, "healthy")], ["restart"],
         "a moves the outputs by 0.75 of their size, more than 0.1 (--max-drift) and would turn "
         "undetermined into healthy. b moves the outputs by 0.9 of their size, more than 0.1 "
         "(--max-drift) and would turn undetermined into healthy. restart would help only with "
         f"training. {LABELS} --max-drift 0.76 writes a as it is, unproven."),
        ([Tried("a", math.inf, "undetermined")], ["restart"], "a leaves outputs that are not "
         f"finite. restart would help only with training. {LABELS}"),
    ],
)  # fmt: skip
def test_what_was_tried_and_what_helps(tried, needing, said):
    assert why_not(tried, needing, "undetermined", 0.1) == NOTHING + said
