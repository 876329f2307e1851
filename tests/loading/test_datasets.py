"""Folders of ``datasets``: splits, shards, arrays in lists; nothing is run or read elsewhere."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

from gradscope.config import DataSettings
from gradscope.errors import DataError, GradscopeError
from gradscope.loading import load_sample, load_validation
from gradscope.loading.sources import open_source
from gradscope.model import LoadedModel, Sample
from tests.loading.mutations import mutated

# Written by datasets 5.2: train (12 rows in two files) and test (6), pixel_values Array3D (1, 4, 4)
# from numpy.random.default_rng(0).normal, label ClassLabel.
SAVED = Path(__file__).parent / "saved_dataset"


def save(folder: Path, *shards: dict[str, object], batch: int | None = None) -> Path:
    """As ``save_to_disk`` does."""
    folder.mkdir(parents=True)
    names = []
    for i, columns in enumerate(shards):
        names.append(f"data-{i:05}-of-{len(shards):05}.arrow")
        table = pa.table(columns)
        with pa.ipc.new_stream(str(folder / names[-1]), table.schema) as stream:
            stream.write_table(table, max_chunksize=batch)
    state = {"_data_files": [{"filename": n} for n in names], "_format_type": None}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text("{}")
    return folder


def images() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 2))


def opened(module: nn.Module, data: Path, **settings) -> Sample:
    return load_sample(LoadedModel("m", "", module), DataSettings(data=str(data), **settings))


def inputs(sample: Sample) -> torch.Tensor:
    return torch.cat([b.args[0] for b in sample.batches()])


def test_what_the_library_wrote():
    sample = opened(images(), SAVED)
    rng = np.random.default_rng(0)
    expected = rng.normal(size=(12, 1, 4, 4)).astype(np.float32)
    assert np.array_equal(inputs(sample), expected)
    assert torch.cat([b.labels for b in sample.batches()]).tolist() == [0, 1] * 6
    assert any("split 'train' of train, test" in n for n in sample.notes)
    test = opened(images(), SAVED / "test")
    assert np.array_equal(inputs(test), rng.normal(size=(6, 1, 4, 4)).astype(np.float32))


def test_held_out_data_name_their_split():
    model = LoadedModel("m", "", images())
    settings = DataSettings(data=str(SAVED), val=str(SAVED / "test"))
    held_out = load_validation(model, settings, load_sample(model, settings))
    assert held_out is not None
    assert held_out.samples == 6
    with pytest.raises(DataError, match="which is held out"):
        load_validation(model, DataSettings(data=str(SAVED / "train"), val=str(SAVED)))


def test_wanted_rows_over_files_and_batches(tmp_path):
    table = np.random.default_rng(0).normal(size=(100, 3))
    shards = [{"x": list(part)} for part in np.split(table, [30, 31])]
    source = open_source(str(save(tmp_path / "d", *shards, batch=7)), DataSettings())
    rows = np.array([0, 6, 7, 29, 30, 31, 32, 98, 99])
    for chosen in (rows, range(25, 60)):
        reader = source.open(["x"])
        parts = [reader.take(chosen[i : i + 4])["x"] for i in range(0, len(chosen), 4)]
        reader.close()
        assert np.array_equal(torch.cat(parts).numpy(), table[chosen])


def test_tokens_by_name(tmp_path):
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.out = nn.Embedding(9, 4), nn.Linear(4, 2)

        def forward(self, input_ids):
            return self.out(self.table(input_ids).mean(1))

    columns = {"input_ids": [[1, 2], [3, 4]], "text": ["a", "b"], "label": [1, 0]}
    sample = opened(Net(), save(tmp_path / "d", columns))
    [batch] = sample.batches()
    assert [t.tolist() for t in (*batch.args, *batch.kwargs.values())] == [[[1, 2], [3, 4]]]


IMAGE = pa.array(
    [{"bytes": b"\x89PNG", "path": None}],
    pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
)


def broken(folder: Path, **state: object) -> Path:
    save(folder, {"x": [[1.0, 2.0]]})
    (folder / "state.json").write_text(json.dumps(state))
    return folder


def with_text(folder: Path, name: str, text: str) -> Path:
    save(folder, {"x": [[1.0, 2.0]]})
    (folder / name).write_text(text)
    return folder


def piped(folder: Path, name: str) -> Path:
    """With a pipe in place of a file: whoever opens it waits for a writer."""
    (folder / name).unlink()
    os.mkfifo(folder / name)
    return folder


def split(folder: Path) -> Path:
    save(folder / "train", {"x": [1.0]})
    (folder / "dataset_dict.json").write_text('{"splits": ["train"]}')
    return folder


def device(folder: Path) -> Path:
    [file] = folder.glob("*.arrow")
    file.unlink()
    file.symlink_to("/dev/zero")
    return folder


REFUSED = {
    "images": (lambda d: save(d, {"image": IMAGE, "label": [0]}), "Decode the images"),
    "outside": (
        lambda d: broken(d, _data_files=[{"filename": "../../etc/passwd"}]),
        "there is no '../../etc/passwd' in it",
    ),
    "absolute": (lambda d: broken(d, _data_files=[{"filename": "/etc/passwd"}]), "there is no"),
    "dots": (lambda d: broken(d, _data_files=[{"filename": ".."}]), "there is no '..'"),
    "absent": (lambda d: broken(d, _data_files=[{"filename": "a.arrow"}]), "there is no 'a.arrow'"),
    "endless": (lambda d: broken(d, _data_files=[{"filename": "é" * 255}]), "there is no 'é"),
    "no text": (lambda d: broken(d, _data_files=[{"filename": 7}]), "there is no '7'"),
    "NUL": (lambda d: broken(d, _data_files=[{"filename": "a\0b"}]), "there is no"),
    "long": (lambda d: broken(d, _data_files=[{"filename": "a" * 9999}]), "there is no"),
    "no files": (lambda d: broken(d, _data_files=[]), "has no rows"),
    "files of another kind": (lambda d: broken(d, _data_files=[1]), "lists no files"),
    "nothing said": (lambda d: broken(d), "lists no files"),
    "indices": (
        lambda d: broken(d, _data_files=[], _indices_data_files=[{"filename": "i.arrow"}]),
        "flatten_indices",
    ),
    "a pipe": (lambda d: piped(save(d, {"x": [1.0]}), "data-00000-of-00001.arrow"), "there is no"),
    "its state a pipe": (lambda d: piped(split(d), "train/state.json"), "there is no 'state.json'"),
    "a device": (lambda d: device(save(d, {"x": [1.0]})), "there is no"),
    "no JSON": (lambda d: with_text(d, "state.json", "{"), "is broken"),
    "deep JSON": (lambda d: with_text(d, "state.json", "[" * 100_000), "is broken"),
    "no object": (lambda d: with_text(d, "state.json", "[]"), "no JSON object"),
    "no Arrow": (lambda d: with_text(d, "data-00000-of-00001.arrow", "x" * 99), "broken"),
    "empty file": (lambda d: with_text(d, "data-00000-of-00001.arrow", ""), "broken"),
    "no splits": (lambda d: with_text(d, "dataset_dict.json", "{}"), "lists no splits"),
    "split outside": (
        lambda d: with_text(d, "dataset_dict.json", '{"splits": ["../x"]}'),
        "there is no '../x'",
    ),
    "other columns": (lambda d: save(d, {"x": [1.0]}, {"z": [1.0]}), "other columns"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_line(name, tmp_path):
    make, message = REFUSED[name]
    with pytest.raises(GradscopeError) as caught:
        opened(nn.Linear(2, 2), make(tmp_path / "d"))
    assert message in str(caught.value)
    assert str(tmp_path / "d") in str(caught.value)


def test_without_pyarrow_one_line_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"pip install 'gradscope-cli\[datasets\]'"):
        opened(images(), SAVED)


def test_forged_offsets_are_found(tmp_path):
    """Arrow takes offsets for granted; reading beyond the data would end the process."""
    folder = save(tmp_path / "d", {"x": [[1.0, 2.0], [3.0, 4.0]], "y": ["cat", "dog"]})
    file = folder / "data-00000-of-00001.arrow"
    whole = file.read_bytes()
    offsets = np.array([0, 2, 4], np.int32).tobytes()
    assert whole.count(offsets) == 1
    for forged in ([0, 2, 4000], [0, 2**30, 2**30 + 2], [0, -5, 4]):
        file.write_bytes(whole.replace(offsets, np.array(forged, np.int32).tobytes()))
        with pytest.raises(DataError, match="broken"):
            opened(nn.Linear(2, 2), folder)


SEEDS = 300


def test_mutations_are_read_or_refused(tmp_path):
    columns = {"x": [[1.0, 2.0]] * 9, "y": ["cat", "dog", "eel"] * 3}
    folder = save(tmp_path / "d", columns, batch=4)
    file = folder / "data-00000-of-00001.arrow"
    whole = file.read_bytes()
    for seed in range(SEEDS):
        file.write_bytes(mutated(whole, seed))
        with contextlib.suppress(GradscopeError):  # anything else is a bug
            opened(nn.Linear(2, 3), folder)


def test_scripts_in_the_folder_are_not_run(tmp_path):
    folder = shutil.copytree(SAVED, tmp_path / "d")
    script = f"open({str(tmp_path / 'touched')!r}, 'w')\n"
    for place in (folder, folder / "train"):
        (place / "d.py").write_text(script)
        (place / "train.py").write_text(script)
    opened(images(), folder)
    assert not (tmp_path / "touched").exists()
