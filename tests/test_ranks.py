"""Several processes, one report: the same numbers as from one, and no error told twice."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributed import HashStore

from gradscope.cli.processes import _status as of_processes
from gradscope.cli.processes import split
from gradscope.errors import GradscopeError
from gradscope.model import Batch, Sample
from gradscope.probe.shards import shard
from gradscope.ranks import TIMEOUT, place_of
from gradscope.roll_call import RollCall
from tests.forked import ROOT, port, run
from tests.ranks_program import CASES, SIZES, STEPS, TRAININGS, measured, stepped, trained
from tests.ranks_repair import FIX

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


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the processes wrote into, group by group."""
    out = tmp_path_factory.mktemp("ranks")
    run("tests.ranks_program", out, 400)
    return out


@pytest.fixture(scope="module", params=SIZES)
def told(request: pytest.FixtureRequest, written: Path) -> dict[int, dict[str, Any]]:
    """What each process that lived to the end wrote down; of several the last one is killed."""
    size: int = request.param
    found = {int(f.stem): json.loads(f.read_text()) for f in written.glob(f"{size}/*.json")}
    assert found.keys() == set(range(max(size - 1, 1)))
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
            if theirs is None:
                assert mine is None  # an optimiser does not touch what has no gradient
            else:
                assert mine == pytest.approx(theirs, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_ends_as_that_of_one_process(name: str, told: dict[int, dict[str, Any]]) -> None:
    """Whether gradients come together, or parameters lie in parts; broken off and resumed."""
    alone = pytest.approx(trained(name), rel=1e-5, abs=1e-5)
    for found in told.values():
        if found["size"] != 2:
            continue
        assert found[f"trained: {name}"] == alone
        if name.startswith("branches"):
            # In parts, what no sample of a batch uses has a gradient of 0 and not none.
            assert found[f"sharded: {name}"] == told[0][f"sharded: {name}"]
            continue
        assert found[f"sharded: {name}"] == alone


def test_what_one_refuses_all_refuse_alike(told: dict[int, dict[str, Any]]) -> None:
    texts = {found["refused"].partition(": ")[2] for found in told.values()}
    assert len(texts) == 1
    assert "a sample is out of range" in texts.pop()


def test_the_others_end_when_one_is_killed(told: dict[int, dict[str, Any]]) -> None:
    size = told[0]["size"]
    line = f"LostError: rank {size - 1} of {size} is gone. Start all of them again; {TIMEOUT} "
    for found in told.values():
        assert size == 1 or found["killed"].startswith(line)


def test_the_first_process_stays_until_the_others_know_who_is_absent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It may hold the store that they ask: gone with it, it would pass for the absent one."""
    monkeypatch.setattr("gradscope.roll_call.BEAT", 0.2)
    store, heard = HashStore(), []
    first, second = (RollCall(rank, 3, lambda: store) for rank in range(2))

    def late() -> None:
        time.sleep(0.4)
        heard.append(second.absent())

    with first, second, ThreadPoolExecutor() as threads:
        asked = threads.submit(late)
        assert first.absent() == (2,)
        assert heard == [(2,)]
        asked.result()


def test_torchrun_reports_once_and_its_errors_once(tmp_path: Path) -> None:
    models = [str(SAMPLES / "deep_tanh.pt"), str(tmp_path / "absent.pt")]
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
        "--master-port", port(), "-m", "gradscope", "check", *models,
        "--data", str(SAMPLES / "digits.npz"), "--samples", "64",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=180)
    assert done.returncode != 0
    assert len(re.findall(r"^REFUSED ", done.stdout, re.MULTILINE)) == 1
    assert len(re.findall(r"error +GS101 vanishing-gradient", done.stdout)) == 1
    assert "(exitcode: 2) local_rank: 0" in done.stderr
    assert "local_rank: 1" not in done.stderr.partition("Root Cause")[0]


def _tensors(path: Path) -> torch.Tensor:
    return torch.cat(
        [t.flatten() for t in torch.load(path, weights_only=False).state_dict().values()]
    )


def test_a_repair_goes_on_after_a_process_was_killed(tmp_path: Path) -> None:
    whole = tmp_path / "whole.pt"
    command = [sys.executable, "-m", "gradscope", "--processes", "2", *FIX, "--out", str(whole)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr

    run("tests.ranks_repair", tmp_path, 180)
    assert "rank 1 of 2 is gone." in (tmp_path / "broken" / "0.txt").read_text()
    assert not (tmp_path / "broken" / "fixed.pt").exists()

    again = (tmp_path / "again" / "0.txt").read_text()
    assert "the last of them from step" in " ".join(again.split())
    assert (tmp_path / "again" / "fixed.pt").read_bytes() == whole.read_bytes()

    alone = (tmp_path / "alone" / "0.txt").read_text()
    assert "in each of 2 processes and goes on with" in alone
    assert _tensors(tmp_path / "alone" / "fixed.pt") == pytest.approx(
        _tensors(whole), rel=1e-5, abs=1e-5
    )


def test_who_does_not_answer_is_named_and_who_failed_is_heard(written: Path) -> None:
    """Among gradients, and parameters in parts, where the others wait for half the time before they
    ask; and anywhere."""
    said = json.loads((written / "stopped" / "0.json").read_text())
    assert said["soured"] == "the model cannot be trained: a sample has no way back"
    parted = json.loads((written / "parted" / "0.json").read_text())["parted"]
    assert parted.endswith("on 4 samples at once: ValueError: a sample is out of range")
    assert said["stopped"].startswith("LostError: rank 1 of 2 did not answer within 12 s.")


def test_a_command_for_several_processes_keeps_its_status() -> None:
    command = [
        sys.executable, "-m", "gradscope", "--processes", "2", "check",
        str(SAMPLES / "deep_tanh.pt"), "--data", str(SAMPLES / "digits.npz"), "--samples", "64",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=180)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.count("status ") == 1


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ({0: 1}, 1),
        ({0: 3, 1: -15}, 3),
        ({0: 2, 1: -9}, 2),  # stopped: it was named, and killed at the end
        ({1: 2}, 2),
        ({0: 143, 1: -9}, "rank 1 of 4 was ended by signal 9"),
        ({0: 143, 1: 130}, 143),
        ({0: -15, 1: -9}, "rank 1 of 4 was ended by signal 9"),
        ({0: -11}, "rank 0 of 4 was ended by signal 11"),
    ],
)
def test_the_status_of_several_processes(codes: dict[int, int], expected: int | str) -> None:
    if isinstance(expected, int):
        assert of_processes(codes, 4) == expected
    else:
        with pytest.raises(GradscopeError, match=expected):
            of_processes(codes, 4)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], (1, [])),
        (["check", "m.pt"], (1, ["check", "m.pt"])),
        (["--processes", "4", "check"], (4, ["check"])),
        (["--processes=4", "check"], (4, ["check"])),
        (["check", "--processes", "4"], (1, ["check", "--processes", "4"])),
        (["--processes"], None),
        (["--processes", "0", "check"], None),
        (["--processes", "all", "check"], None),
        (["--processes", "\N{SUPERSCRIPT TWO}", "check"], None),
    ],
)
def test_a_command_line_says_how_many_processes(
    words: list[str], expected: tuple[int, list[str]] | None
) -> None:
    if expected is not None:
        assert split(words) == expected
    else:
        with pytest.raises(GradscopeError, match="--processes"):
            split(words)
