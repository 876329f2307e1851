"""What ``build`` wrote about each model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.zoo.conditions import HEALTHY, planted


def records(folder: Path) -> list[dict[str, Any]]:
    """The records of a part; each with ``path`` (the common stem of its files) and what
    was planted."""
    found = []
    for path in sorted(folder.glob("*/*.json")):
        if ".measured" in path.name:
            continue
        record = json.loads(path.read_text())
        record["path"] = str(path).removesuffix(".json")
        condition = planted(record["condition"], record["activation"])
        record["causes"], record["near"] = condition.causes, condition.near
        record["planted"] = record["condition"] not in HEALTHY
        found.append(record)
    return found
