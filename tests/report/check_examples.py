"""Results of checks made by hand, one for each thing that a format must be able to say."""

from __future__ import annotations

from collections.abc import Callable

from gradscope.checking import (
    CheckResult,
    Fixed,
    Ignored,
    Known,
    ModelCheck,
    RuleInfo,
    summarise,
)
from gradscope.diagnosis import Verdict
from gradscope.findings import Cause, Finding, Severity, Skipped

RULES = {
    "GS101": RuleInfo(
        "GS101", "vanishing-gradient", "The gradient shrinks.", "It is lost on its way.",
        "Start again with {Xavier} weights.",
    ),
    "GS301": RuleInfo(
        "GS301", "oversized-weight", "A weight is too large.", "Large weights saturate.",
        "Shrink it.",
    ),
}  # fmt: skip

LOST = Finding(
    "GS101", "vanishing-gradient", Severity.ERROR, "0/tanh ... 38/tanh",
    "-6.0 decades (limit -2.5)", -6.0, -2.5, Cause.DEPTH_GAIN,
)  # fmt: skip
LARGE = Finding(
    "GS301", "oversized-weight", Severity.WARNING, "layers.3.weight[17,:]",
    "46 times its usual size: 100%, or so", 46.0, 4.0, Cause.LARGE_PARAMETERS,
)  # fmt: skip
UNDERFLOW = Finding(
    "GS106", "gradient-underflow", Severity.INFORMATION, "0.weight, 0.bias",
    "up to 78% of the gradient would be 0 in float16 (limit 50%)", 0.78, 0.5,
)  # fmt: skip

HOSTILE = (
    "a\"b'c<script>alert(1)</script>|`x`\r\n::error::%0A,[y](https://e.vil){0}$\x1b[31m\ud800]]>"
)


def result(*models: ModelCheck, fail_on: str = "error", **given: object) -> CheckResult:
    """With the summary made."""
    return CheckResult(models, summarise(models), fail_on, rules=RULES, **given)


def model(path: str, status: int, why: str, verdict: Verdict, **given: object) -> ModelCheck:
    """One that was examined."""
    summary = {
        Verdict.HEALTHY: "It works: skill 0.95, accuracy 0.97 on held-out data.",
        Verdict.UNDETERMINED: "Without labels nobody knows whether it works.",
    }.get(verdict, "The weights' gain is a little too small, layer after layer.")
    return ModelCheck(
        path, status, why, format="PyTorch module", verdict=verdict, summary=summary, **given
    )


def healthy() -> CheckResult:
    return result(model("models/a.pt", 0, "nothing that fails", Verdict.HEALTHY))


def unhealthy() -> CheckResult:
    return result(
        model("models/a.pt", 0, "nothing that fails", Verdict.HEALTHY, findings=(UNDERFLOW,)),
        model(
            "models/deep net.pt", 1, "1 finding that fails", Verdict.UNHEALTHY,
            verdict_counts=True, causes=(Cause.DEPTH_GAIN,), advice="Start again.",
            findings=(LOST, LARGE, UNDERFLOW), skipped=(Skipped("total of aux", "no path"),),
            inspect="gradscope inspect 'models/deep net.pt'",
        ),
        next=(("gradscope inspect 'models/deep net.pt'", "the whole report"),),
    )  # fmt: skip


def undetermined() -> CheckResult:
    said = "the verdict is undetermined: Without labels nobody knows whether it works."
    return result(
        model(
            "models/b.onnx", 1, said, Verdict.UNDETERMINED, verdict_counts=True,
            settle="--data FILE with labels y", findings=(LARGE,),
        ),
        fail_on="undetermined",
    )  # fmt: skip


def refused() -> CheckResult:
    lost = "is broken: it ends after 12 of 400 bytes. Save or copy the file again."
    nothing = "nothing could be measured"
    return result(
        ModelCheck("models/broken.pt", 2, lost, error=lost),
        ModelCheck("models/empty.pt", 3, nothing, error=nothing),
        model("models/a.pt", 0, "nothing that fails", Verdict.HEALTHY),
    )


def compared() -> CheckResult:
    """With a baseline and ignored findings."""
    fixed = Fixed("GS202", "dead-relu", "body.4/relu", "0123456789abcdef", 1.0)
    return result(
        model(
            "models/deep.pt", 1, "1 finding that fails", Verdict.UNHEALTHY,
            worse=(Known(LOST, -3.1, Severity.ERROR),), known=(Known(LARGE, 46.0, LARGE.severity),),
            ignored=(Ignored(UNDERFLOW, "trained in bfloat16, see #12"),), fixed=(fixed,),
        ),
        notes=("the ignore of GS203 in 'encoder.*' matches nothing",),
    )  # fmt: skip


def hostile() -> CheckResult:
    """Every text is hostile."""
    bad = HOSTILE
    finding = Finding("GS101", "vanishing-gradient", Severity.ERROR, bad, bad, None, None)
    return result(
        ModelCheck(
            f"models/{bad}.pt", 1, bad, format=bad, verdict=Verdict.UNHEALTHY, summary=bad,
            verdict_counts=True, advice=bad, settle=bad, findings=(finding,),
            ignored=(Ignored(finding, bad),), known=(Known(finding, None, Severity.ERROR),),
            fixed=(Fixed("GS101", "vanishing-gradient", bad, "0" * 16, None),),
            skipped=(Skipped(bad, bad),),
        ),
        ModelCheck(f"/somewhere/else/{bad}.pt", 2, bad, error=bad),
        notes=(bad,), next=((bad, bad),),
    )  # fmt: skip


CHECKS: dict[str, Callable[[], CheckResult]] = {
    f.__name__: f for f in (healthy, unhealthy, undetermined, refused, compared, hostile)
}
