"""Options of ``gradscope check`` alone: what is let through, what is known, what is written."""

from __future__ import annotations

import typer

from gradscope.report import CHECK_FORMATS

_GATE, _BASELINE, _REPORT = "Gate", "Baseline", "Report"

FAIL_ON = typer.Option(
    help="Exit with status 1 on findings of this severity or above (default: error); "
    "undetermined: on errors, and if no verdict could be reached.",
    rich_help_panel=_GATE,
)
SELECT = typer.Option(
    metavar="CODE",
    help="Only these rules: a code, a prefix (GS2) or a name, also with commas. Repeatable.",
    rich_help_panel=_GATE,
)
IGNORE = typer.Option(
    metavar="CODE",
    help="Not these rules, in the same forms. Repeatable.",
    rich_help_panel=_GATE,
)
BASELINE = typer.Option(
    metavar="FILE",
    help="Findings that are known: they pass unless they get worse.",
    rich_help_panel=_BASELINE,
)
WRITE_BASELINE = typer.Option(
    "--write-baseline",
    help="Accept what is found now: write it to the baseline.",
    rich_help_panel=_BASELINE,
)
PRUNE_BASELINE = typer.Option(
    "--prune-baseline",
    help="Take out of the baseline what is fixed, and hold the rest to its better numbers.",
    rich_help_panel=_BASELINE,
)
TOLERANCE = typer.Option(
    min=0.0,
    metavar="SHARE",
    help="By how much a known number may get worse, as a share of it or of its threshold, "
    "whichever is larger (default: 0.1).",
    rich_help_panel=_BASELINE,
)
FORMAT = typer.Option(
    "--format",
    metavar="FORMAT",
    help=f"What is printed: {', '.join(CHECK_FORMATS)} (default: terminal). Repeatable.",
    rich_help_panel=_REPORT,
)
OUTPUT = typer.Option(
    metavar="FORMAT:PATH",
    help="Write a report in a format to a file as well. Repeatable.",
    rich_help_panel=_REPORT,
)
SHOW_SETTINGS = typer.Option(
    "--show-settings",
    help="Print the settings in force and where each comes from, and examine nothing.",
    rich_help_panel=_REPORT,
)
STANDARDISE = typer.Option(
    "--standardise/--no-standardise",
    help="Feed (x - mean) / sd, each column or channel by itself.",
    rich_help_panel="Data",
)
GRADIENTS = typer.Option(
    "--gradients/--no-gradients",
    help="Without: saturation, dead units and weights only; nothing runs backward.",
    rich_help_panel="Measuring",
)
MODELS = typer.Argument(
    metavar="MODEL...",
    help="Saved models, also as globs: 'models/*.pt'. Without any: those that the settings "
    "file names.",
)
