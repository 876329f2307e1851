"""Options on which samples are run and how they are measured, the same for every command.

Without the type: ``inspect`` has defaults, while in ``check`` what is not given is left to the
settings file.
"""

from __future__ import annotations

import typer

_DATA, _PROBE = "Data", "Measuring"

DATA = typer.Option(
    metavar="FILE|MODULE:FN",
    help="Samples to run: .npz, .npy, .pt, safetensors, .csv, Parquet, a saved dataset, a "
    "folder of shards, or a callable that yields batches. x is the only or first input, y "
    "the labels. Without it an input is made up.",
    rich_help_panel=_DATA,
)
VAL = typer.Option(
    metavar="FILE|MODULE:FN", help="Held-out samples, in the same forms.", rich_help_panel=_DATA
)
SAMPLES = typer.Option(
    metavar="N|all", help="How many samples to run at most.", rich_help_panel=_DATA
)
BATCH_SIZE = typer.Option(min=1, metavar="N", help="Samples in one pass.", rich_help_panel=_DATA)
LOSS = typer.Option(
    metavar="NAME",
    help="auto, cross-entropy, bce, mse, nll or MODULE:FN; used if there are labels.",
    rich_help_panel=_PROBE,
)
DRAWS = typer.Option(
    min=1,
    max=10_000,
    metavar="K",
    help="Random cotangents; a backward pass each.",
    rich_help_panel=_PROBE,
)
MODE = typer.Option(
    help="eval switches dropout off and batch norm to its running statistics.",
    rich_help_panel=_PROBE,
)
SEED = typer.Option(
    min=0,
    max=2**63 - 1,
    metavar="N",
    help="Of the samples drawn and of the cotangents: same seed, same report.",
    rich_help_panel=_PROBE,
)
DEVICE = typer.Option(help="Where to run, e.g. cpu or cuda.", rich_help_panel=_PROBE)
DEVICE_MAP = typer.Option(
    metavar="auto|disk|FILE.json",
    help="Spread the model's modules over devices and the disk (extra accelerate): auto, disk for "
    "all of it, or a file of module names and devices.",
    rich_help_panel=_PROBE,
)
HEAD = typer.Option(
    metavar="NAME",
    help="Which output of a model with several: its key or number. Repeatable; the loss is taken "
    "at the first.",
    rich_help_panel=_PROBE,
)
DTYPE = typer.Option(
    metavar="TYPE",
    help="Cast parameters and inputs, and measure in that type: bf16, fp16, float32 or float64 "
    "(default: as in the file). Statistics are float32 or float64.",
    rich_help_panel=_PROBE,
)
LIMIT = typer.Option(
    metavar="CODE.NAME=NUMBER",
    help="Another threshold of a rule, e.g. GS101.total=-4; before those of "
    "\\[tool.gradscope.rules] in pyproject.toml. Repeatable; 'gradscope rule' lists them.",
    rich_help_panel="Report",
)
