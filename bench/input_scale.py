"""Which scale and which offset of the inputs a network still learns from.

    python bench/input_scale.py [--out FILE]

New networks of seven development families of the calibration zoo are trained for their whole budget
on standardised inputs times a factor, or plus an offset, and compared with their reference as
``bench/zoo/truth.py`` does: the evidence for the thresholds of GS501. Some ten minutes of one core.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.zoo.build import Builder, Saved, Unit, continued
from bench.zoo.families import DEVELOPMENT, Family
from bench.zoo.rates import table
from bench.zoo.training import chance, score
from bench.zoo.truth import decide

FAMILIES = (
    "mlp-tanh-digits", "mlp-relu-digits", "mlp-gelu-spirals", "cnn-relu-digits-bn",
    "cnn1d-relu-mnist1d", "lstm-tanh-lag20", "gru-tanh-adding12",
)  # fmt: skip
CHANGES = ((5, 0), (20, 0), (70, 0), (200, 0), (1000, 0), (1, 10), (1, 40), (1, 150))


def row(family: Family) -> list[str]:
    """One family: score after training and the truth, for every change."""
    builder = Builder(Unit("dev", family, 0, Path()))
    data = builder.data
    cells = [family.name, f"{family.optimiser} {family.lr:g}", f"{builder.twin.value:.2f}"]
    for factor, offset in CHANGES:
        x, x_val = ((v * factor + offset).astype(np.float32) for v in (data.x, data.x_val))
        shown = replace(data, x=x, x_val=x_val)
        net = builder.fresh("inputs-x1000")
        saved = Saved(net, shown, "", None, builder.twin, shown)
        after = continued(saved, family, 1)
        truth = decide(score(net, shown), after, builder.twin, chance(shown)).truth
        cells.append(f"{after.value:.2f} {truth}")
    print(" ".join(cells), file=sys.stderr, flush=True)
    return cells


def main() -> None:
    """Run all families."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    names = [f"x{factor}" if factor > 1 else f"+{offset}" for factor, offset in CHANGES]
    rows = [row(f) for f in DEVELOPMENT if f.name in FAMILIES]
    lines = [
        "# Inputs that are large or far from 0", "",
        f"`python bench/input_scale.py`, {date.today()}: score after the budget and the truth;"
        " inputs of sd 0.5 to 1 times a factor, or plus an offset; seed 0.", "",
        *table(("family", "trained by", "reference", *names), rows),
    ]  # fmt: skip
    text = "\n".join(lines)
    if options.out:
        options.out.write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
