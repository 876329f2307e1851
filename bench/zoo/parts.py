"""The parts of the zoo, their families and the seeds that each family is built with."""

from __future__ import annotations

from bench.zoo import families, fourth, fresh
from bench.zoo.families import Family

PARTS: dict[str, tuple[Family, ...]] = {
    "dev": families.DEVELOPMENT,
    "held": families.HELD,
    "fresh": fresh.FRESH,
    "fourth": fourth.FOURTH,
}
SEEDS = {
    "dev": families.SEEDS,
    "held": families.SEEDS,
    "fresh": fresh.SEEDS,
    "fourth": fourth.SEEDS,
}


def count(part: str) -> int:
    """Number of models of a part."""
    return len(SEEDS[part]) * sum(len(f.healthy) + len(f.faults) for f in PARTS[part])
