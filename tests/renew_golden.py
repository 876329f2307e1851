"""Writes the golden files anew: ``make golden``, then read the diff."""

from __future__ import annotations

import json
from pathlib import Path

from gradscope.report import Canvas, check_format, compare_format, render
from gradscope.report.check_json import baseline_schema, check_schema
from gradscope.report.compare_json import compare_schema
from gradscope.report.schema import report_schema
from gradscope.report.treatment_json import fix_schema
from gradscope.rules import all_rules
from tests.comparing.examples import COMPARISONS
from tests.report.check_examples import CHECKS
from tests.report.examples import EXAMPLES, inspection

GOLDEN = Path(__file__).parent / "report" / "golden"
CHECK_ENDINGS = {
    "terminal": ".txt", "concise": ".txt", "json": ".json",
    "sarif": ".json", "junit": ".xml", "github": ".txt", "markdown": ".md", "gitlab": ".json"
}  # fmt: skip
"""Of the formats that have golden files: not of the page, most of which is its style."""
SCHEMA = Path(__file__).parent.parent / "docs" / "report.schema.json"
CHECK_SCHEMA = SCHEMA.with_name("check.schema.json")
BASELINE_SCHEMA = SCHEMA.with_name("baseline.schema.json")
COMPARE_SCHEMA = SCHEMA.with_name("compare.schema.json")
FIX_SCHEMA = SCHEMA.with_name("fix.schema.json")


def golden_files() -> dict[Path, str]:
    """Every golden file and what should stand in it."""
    files = {SCHEMA: json.dumps(report_schema([r.code for r in all_rules()]), indent=2) + "\n"}
    for name, make in EXAMPLES.items():
        found = inspection(make())
        files[GOLDEN / f"{name}.txt"] = render("terminal", found, width=80)
        if name in ("saturated", "recurrent", "weights-only"):
            files[GOLDEN / f"{name}.json"] = render("json", found)
    files[GOLDEN / "vanishing-ascii.txt"] = render(
        "terminal", inspection(EXAMPLES["vanishing"]()), width=80, unicode=False
    )
    files[GOLDEN / "vanishing-colour.txt"] = render(
        "terminal", inspection(EXAMPLES["vanishing"]()), width=80, colour=True
    )
    files[FIX_SCHEMA] = json.dumps(fix_schema(), indent=2) + "\n"
    return files | check_files() | compare_files()


def compare_files() -> dict[Path, str]:
    """What a comparison's own formats say, but for the page, and the schema of its JSON."""
    schema = compare_schema([r.code for r in all_rules()])
    files = {COMPARE_SCHEMA: json.dumps(schema, indent=2) + "\n"}
    for name, make in COMPARISONS.items():
        for format_, ending in (("terminal", ".txt"), ("json", ".json"), ("markdown", ".md")):
            text = compare_format(format_).render(make(), Canvas())
            files[GOLDEN / f"compare-{name}.{format_}{ending}"] = text
        wide = compare_format("terminal").render(make(), Canvas(160, colour=True))
        files[GOLDEN / f"compare-{name}.terminal-160-colour.txt"] = wide
    return files


def check_files() -> dict[Path, str]:
    """Every format of every example of a check, and the schema of its JSON."""
    schema = check_schema([r.code for r in all_rules()])
    files = {
        CHECK_SCHEMA: json.dumps(schema, indent=2) + "\n",
        BASELINE_SCHEMA: json.dumps(baseline_schema(), indent=2) + "\n",
    }
    for name, make in CHECKS.items():
        for format_, ending in CHECK_ENDINGS.items():
            text = check_format(format_).render(make(), Canvas())
            files[GOLDEN / f"check-{name}.{format_}{ending}"] = text
        wide = check_format("terminal").render(make(), Canvas(160, colour=True))
        files[GOLDEN / f"check-{name}.terminal-160-colour.txt"] = wide
    return files


def main() -> None:
    """Write them."""
    for path, content in golden_files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
