"""Several processes, one report: the same numbers as from one, and no error told twice."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gradscope.errors import GradscopeError
from gradscope.model import Batch, Sample
from gradscope.probe.shards import shard
from gradscope.ranks import TIMEOUT, place_of
from tests.ranks_program import CASES, STEPS, measured, stepped

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = ROOT / "sample_models"
TOLERANCE = 1e-6


def _sample(samples: int, batch: int) -> Sample:
    x = torch.arange(samples)

    def batches() -> Iterator[Batch]:
        for start in range(0, samples, batch):
            piece = x[start : start + batch]
            yield Batch((piece,), {}, piece, len(piece), start)

    return Sample(None, samples, None, False, True, {"x": ()}, batches)


@given(st.integers(1, 60), st.integers(1, 70), st.integers(1, 7), st.booleans())
def test_shares_are_all_samples_once_and_in_order(
    samples: int, batch: int, size: int, whole: bool
) -> None:
    sample = _sample(samples, batch)
    shares = [list(shard(sample, r, size, whole=whole).batches()) for r in range(size)]
    every = [b for share in shares for b in share]
    assert torch.cat([b.args[0] for b in every]).tolist() == list(range(samples))
    assert torch.cat([b.labels for b in every]).tolist() == list(range(samples))
    assert all(b.start == int(b.args[0][0]) and b.size == len(b.args[0]) for b in every)
    counts = [sum(b.size for b in share) for share in shares]
    if whole:
        cut = [b.size for b in every if b.size != batch]
        assert len(cut) <= 1  # the last one of all
    else:
        assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"RANK": "1", "WORLD_SIZE": "2"}, None),
        (
            {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "here", "MASTER_PORT": "1"},
            (1, 2, 0, 600.0),
        ),
        (
            {"RANK": "5", "WORLD_SIZE": "8", "MASTER_ADDR": "here", "MASTER_PORT": "1",
             "LOCAL_RANK": "1", TIMEOUT: "30"},
            (5, 8, 1, 30.0),
        ),
    ],
)  # fmt: skip
def test_the_place_is_read_from_the_environment(
    environment: dict[str, str], expected: tuple[int, int, int, float] | None
) -> None:
    place = place_of(environment)
    found = place and (place.rank, place.size, place.local_rank, place.timeout)
    assert found == expected


@pytest.mark.parametrize("text", ["x", "-1", "", "0"])
def test_a_timeout_that_is_none_is_refused(text: str) -> None:
    asked = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "here", "MASTER_PORT": "1"}
    with pytest.raises(GradscopeError, match=f"environment's {TIMEOUT}"):
        place_of({**asked, TIMEOUT: text})


def _port() -> str:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return str(s.getsockname()[1])


@pytest.fixture(scope="module", params=[1, 2, 4])
def told(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[int, dict[str, Any]]:
    """What each process that lived to the end wrote down; of several the last one is killed."""
    size: int = request.param
    out = tmp_path_factory.mktemp(f"ranks{size}")
    shared = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": _port()}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.ranks_program", str(out)],
            cwd=ROOT,
            env={**os.environ, **shared, "RANK": str(rank), TIMEOUT: "60"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]
    try:
        errors = [process.communicate(timeout=180)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    found = {int(f.stem): json.loads(f.read_text()) for f in out.glob("*.json")}
    assert len(found) == max(size - 1, 1), errors
    return found


def _numbers(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _numbers(inner, f"{place}.{key}")
    elif isinstance(value, list):
        yield f"{place} length", len(value)
        for i, inner in enumerate(value):
            yield from _numbers(inner, f"{place}[{i}]")
    else:
        yield place, value


@pytest.mark.parametrize("name", CASES)
def test_the_numbers_are_those_of_one_process(name: str, told: dict[int, dict[str, Any]]) -> None:
    alone = dict(_numbers(json.loads(json.dumps(asdict(measured(CASES[name]))))))
    for found in told.values():
        shared = dict(_numbers(found[name]))
        assert shared.keys() == alone.keys()
        for place, value in alone.items():
            if place.endswith(("forward_passes", "backward_passes")):
                assert shared[place] >= value  # of all processes
            elif isinstance(value, float):
                assert shared[place] == pytest.approx(value, rel=TOLERANCE, abs=TOLERANCE), place
            else:
                assert shared[place] == value, place


@pytest.mark.parametrize("name", STEPS)
def test_a_step_of_training_has_the_gradient_of_one_process(
    name: str, told: dict[int, dict[str, Any]]
) -> None:
    alone = stepped(name)
    for found in told.values():
        for mine, theirs in zip(found[name], alone, strict=True):
            assert mine == pytest.approx(theirs, rel=1e-5, abs=1e-6)


def test_what_one_refuses_all_refuse_alike(told: dict[int, dict[str, Any]]) -> None:
    texts = {found["refused"].partition(": ")[2] for found in told.values()}
    assert len(texts) == 1
    assert "a sample is out of range" in texts.pop()


def test_the_others_end_when_one_is_killed(told: dict[int, dict[str, Any]]) -> None:
    for found in told.values():
        assert "killed" not in found or found["killed"].startswith("LostError: another of the ")
    assert len(told) == 1 or all("killed" in found for found in told.values())


def test_torchrun_reports_once_and_its_errors_once(tmp_path: Path) -> None:
    models = [str(SAMPLES / "deep_tanh.pt"), str(tmp_path / "absent.pt")]
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
        "--master-port", _port(), "-m", "gradscope", "check", *models,
        "--data", str(SAMPLES / "digits.npz"), "--samples", "64",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=180)
    assert done.returncode != 0
    assert len(re.findall(r"^REFUSED ", done.stdout, re.MULTILINE)) == 1
    assert len(re.findall(r"error +GS101 vanishing-gradient", done.stdout)) == 1
    assert "(exitcode: 2) local_rank: 0" in done.stderr
    assert "local_rank: 1" not in done.stderr.partition("Root Cause")[0]
