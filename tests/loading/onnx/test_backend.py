"""ONNX's own backend tests: outputs as the suite has them, gradients as differences in float64.

Every test with a floating input and output is run; each is passed or refused with a reason.
"""

from __future__ import annotations

import pytest

from bench.onnx_backend import KINDS, Result, cases, run

# Passed at least, of the suite in constraints.txt.
PASSED = {"node": 1295, "simple": 13, "pytorch-converted": 80, "pytorch-operator": 34}
# Why the others are refused; a test refused for another reason is a gap.
REASONS = (
    "ai.onnx.preview.training",  # optimisers
    "ai.onnx.ml",
    "random",
    "there is no arithmetic",  # eight bits and fewer
    "quantised",
    "ambiguous",  # the suite and onnxruntime differ
    "LinearAttention",  # opset 27
    "CausalConvWithState",
)


@pytest.fixture(params=KINDS, scope="module")
def results(request: pytest.FixtureRequest) -> tuple[str, list[Result]]:
    return request.param, [run(case) for case in cases(kinds=(request.param,))]


def test_outputs(results: tuple[str, list[Result]]) -> None:
    kind, found = results
    assert [f"{r.case.name}: {r.reason}" for r in found if r.outcome in ("failed", "wrong")] == []
    assert sum(r.outcome == "passed" for r in found) >= PASSED[kind]


def test_refusals_say_why(results: tuple[str, list[Result]]) -> None:
    _, found = results
    for result in found:
        if result.outcome == "refused":
            assert any(reason in result.reason for reason in REASONS), result


def test_gradients(results: tuple[str, list[Result]]) -> None:
    _, found = results
    assert [f"{r.case.name}: {r.reason}" for r in found if r.gradient == "wrong"] == []
    checked = [r for r in found if r.gradient == "checked"]
    assert len(checked) > 0.8 * sum(r.outcome == "passed" for r in found)
    assert max(r.error for r in checked) < 1e-5
