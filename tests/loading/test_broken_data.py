"""Broken and hostile data files: one line and status 2, or the samples as they were saved."""

from __future__ import annotations

import io
import os
import pickle
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from torch import nn

from gradscope.config import DataSettings
from gradscope.errors import DataError, GradscopeError
from gradscope.loading import load_sample
from gradscope.model import LoadedModel

X = np.arange(48, dtype=np.float32).reshape(12, 4)
Y = np.arange(12) % 3
many = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def opened(path: Path):
    return load_sample(LoadedModel("m", "f", nn.Linear(4, 3)), DataSettings(data=str(path)))


def read(path: Path) -> tuple[torch.Tensor, torch.Tensor | None]:
    """All inputs and labels."""
    batches = list(opened(path).batches())
    inputs = torch.cat([(*b.args, *b.kwargs.values())[0] for b in batches])
    labels = [b.labels for b in batches if b.labels is not None]
    return inputs, torch.cat(labels) if labels else None


def save_npz(path: Path) -> None:
    np.savez(path, x=X, y=Y)


def save_deflated(path: Path) -> None:
    np.savez_compressed(path, x=np.asfortranarray(X), y=Y)


def save_npy(path: Path) -> None:
    with path.open("wb") as stream:
        np.save(stream, X)


def save_safetensors(path: Path) -> None:
    save_file({"x": X, "y": Y}, path, {"made": "here"})


WRITERS: dict[str, Callable[[Path], None]] = {
    "npz": save_npz,
    "deflated": save_deflated,
    "npy": save_npy,
    "safetensors": save_safetensors,
}
CHECKED = ("npz", "deflated")  # with checksums: what is read is what was written


def refused_or_read(path: Path, kind: str) -> None:
    """The law: one line, or the samples; with checksums, the same samples."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            inputs, labels = read(path)
        except GradscopeError as error:
            refusal = error
        else:
            refusal = None
    if refusal is not None:
        assert "\n" not in str(refusal)
        assert refusal.exit_status == 2
        return
    if kind in CHECKED:
        assert np.array_equal(inputs.numpy(), X)
        assert labels is None or np.array_equal(labels.numpy(), Y)


@pytest.mark.parametrize("kind", list(WRITERS))
@many
@given(data=st.data())
def test_bits_that_flip(kind, data, tmp_path):
    path = tmp_path / "data.npz"
    WRITERS[kind](path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(bytes(content))
    refused_or_read(path, kind)


@pytest.mark.parametrize("kind", list(WRITERS))
@many
@given(data=st.data())
def test_files_that_break_off_or_are_patched(kind, data, tmp_path):
    path = tmp_path / "data.npz"
    WRITERS[kind](path)
    content = path.read_bytes()
    at = data.draw(st.integers(0, len(content) - 1))
    garbage = data.draw(st.binary(max_size=20))
    rest = content[at + data.draw(st.integers(0, 40)) :] if data.draw(st.booleans()) else b""
    path.write_bytes(content[:at] + garbage + rest)
    refused_or_read(path, kind)


@pytest.mark.parametrize("kind", list(WRITERS))
def test_a_file_cut_anywhere(kind, tmp_path):
    WRITERS[kind](tmp_path / "whole.npz")
    content = (tmp_path / "whole.npz").read_bytes()
    path = tmp_path / "data.npz"
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        with pytest.raises(GradscopeError) as error:
            read(path)
        assert "\n" not in str(error.value)


def npy(header: str, data: bytes = bytes(192)) -> bytes:
    """An array with a header of one's own."""
    text = header.encode("latin-1")
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def header(shape: str = "(12, 4)", descr: str = "'<f4'", order: str = "False") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"


FORGED = {
    "a trillion rows": header("(1000000000000, 4)"),
    "more than an index holds": header("(99999999999999999999999, 4)"),
    "product beyond 64 bits": header("(4294967296, 4294967296, 4294967296)"),
    "one row too many": header("(13, 4)"),
    "negative": header("(-12, 4)"),
    "negative twice": header("(-12, -4)"),
    "zero by infinity": header("(0, 99999999999999)"),
    "no tuple": header("12"),
    "text as size": header("('a', 4)"),
    "objects": header(descr="'|O'"),
    "nested objects": header(descr="[('a', '|O')]"),
    "records": header(descr="[('a', '<f4'), ('b', '<f4')]"),
    "sub-arrays": header(descr="('<f4', (1000000, 1000000))"),
    "no such type": header(descr="'<z9'"),
    "text": header(descr="'<U4'"),
    "nothing": header(descr="'|V4'"),
    "dates": header(descr="'<M8[s]'"),
    "halves of a number": header(descr="'<f3'"),
    "order is no flag": header(order="'yes'"),
    "a call": header("__import__('os').mkdir('canary')"),
    "a deep one": header("(" * 3000 + ")" * 3000),
    "many digits": header("(" + "9" * 9000 + ",)"),
    "another key": "{'descr': '<f4', 'fortran_order': False, 'shape': (12, 4), 'x': 1}",
    "no dictionary": "[1, 2, 3]",
    "no Python": "{{{",
    "empty": "",
}


@pytest.mark.parametrize("name", FORGED)
@pytest.mark.parametrize("inside", ["npy", "stored", "deflated"])
def test_forged_headers(name, inside, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "data.npz"
    content = npy(FORGED[name])
    if inside == "npy":
        path.write_bytes(content)
    else:
        method = zipfile.ZIP_STORED if inside == "stored" else zipfile.ZIP_DEFLATED
        with zipfile.ZipFile(path, "w", method) as archive:
            archive.writestr("x.npy", content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(GradscopeError) as error:
            read(path)
    assert "\n" not in str(error.value)
    assert os.listdir(tmp_path) == ["data.npz"]


def test_the_header_that_is_right_is_read(tmp_path):
    """What the forged ones are forged from."""
    path = tmp_path / "data.npz"
    path.write_bytes(npy(header(), X.tobytes()))
    assert np.array_equal(read(path)[0].numpy(), X)
    path.write_bytes(npy(header(order="True"), X.tobytes(order="F")))
    assert np.array_equal(read(path)[0].numpy(), X)


class Mkdir:
    """Makes a folder when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("canary",)


def test_objects_are_never_unpickled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    array = np.empty(12, object)
    array[:] = Mkdir()
    np.save("a.npy", array, allow_pickle=True)
    np.savez("a.npz", x=X, evil=array)
    np.savez("b.npz", x=X, y=array)
    assert len(read(Path("a.npz"))[0]) == 12  # it is not needed
    for name in ("a.npy", "b.npz"):
        with pytest.raises(DataError, match="Python objects"):
            read(Path(name))
    torch_like = io.BytesIO()
    pickle.dump({"x": Mkdir()}, torch_like)
    Path("c.npz").write_bytes(torch_like.getvalue())
    with pytest.raises(DataError):
        read(Path("c.npz"))
    assert not Path("canary").exists()


def member(path: Path, name: str = "x.npy", method: int = zipfile.ZIP_STORED) -> None:
    buffer = io.BytesIO()
    np.save(buffer, X)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with zipfile.ZipFile(path, "a", method) as archive:
            archive.writestr(name, buffer.getvalue())


def patched(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))


def bomb(path: Path) -> None:
    """Claims to hold 4 GB in a few hundred bytes."""
    member(path, method=zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(path) as archive:
        size = archive.infolist()[0].file_size
    patched(path, struct.pack("<L", size), struct.pack("<L", 0xFFFFFFF0))


def overlapped(path: Path) -> None:
    """Fifty members that are one and the same bytes."""
    member(path, method=zipfile.ZIP_DEFLATED)
    content = path.read_bytes()
    end = content.rindex(b"PK\x05\x06")
    start = struct.unpack("<L", content[end + 16 : end + 20])[0]
    entry = content[start:end]
    entries = b"".join(entry.replace(b"x.npy", b"%c.npy" % (65 + i)) for i in range(50))
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 50, 50, len(entries), start, 0)
    path.write_bytes(content[:start] + entries + tail)


def elsewhere(path: Path) -> None:
    """The directory points to the middle of the data."""
    member(path)
    content = bytearray(path.read_bytes())
    at = content.rindex(b"PK\x01\x02")
    content[at + 42 : at + 46] = struct.pack("<L", 60)
    path.write_bytes(bytes(content))


def wrong_sum(path: Path) -> None:
    """One number differs from what the checksum is of."""
    member(path)
    patched(path, X[5].tobytes(), (X[5] + 1).tobytes())


def wrong_sum_inflated(path: Path) -> None:
    """The same, of a deflated member."""
    member(path, method=zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(path) as archive:
        total = archive.infolist()[0].CRC
    patched(path, struct.pack("<L", total), struct.pack("<L", total ^ 1))


def encrypted(path: Path) -> None:
    """Both headers say that it is encrypted."""
    member(path)
    content = bytearray(path.read_bytes())
    for magic, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(magic) + at] |= 1
    path.write_bytes(bytes(content))


def twice(path: Path) -> None:
    """Two readers would see two arrays."""
    member(path)
    member(path)


ARCHIVES: dict[str, tuple[Callable[[Path], None], str]] = {
    "bomb": (bomb, "claims more bytes than it can hold|broken"),
    "overlapped": (overlapped, "claims more bytes|broken|[Oo]verlap"),
    "offset elsewhere": (elsewhere, "broken"),
    "wrong checksum": (wrong_sum, "broken.*CRC"),
    "wrong checksum, deflated": (wrong_sum_inflated, "broken.*CRC"),
    "encrypted": (encrypted, "encrypted"),
    "one name twice": (twice, "two arrays of one name"),
    "lzma": (lambda p: member(p, method=zipfile.ZIP_LZMA), "compressed in a way"),
    "bzip2": (lambda p: member(p, method=zipfile.ZIP_BZIP2), "compressed in a way"),
    "no member": (lambda p: zipfile.ZipFile(p, "w").close(), "no data file|broken|unknown"),
    "a member that is no array": (
        lambda p: (member(p), zipfile.ZipFile(p, "a").writestr("y.npy", b"nothing"))[0],
        "broken",
    ),
}


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("name", ARCHIVES)
def test_archives_that_are_not_what_they_say(name, tmp_path):
    make, message = ARCHIVES[name]
    path = tmp_path / "data.npz"
    make(path)
    with pytest.raises(GradscopeError, match=message) as error:
        read(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["../../x.npy", "/etc/x.npy", "C:\\x.npy", "x\x1b[2J.npy"])
def test_names_are_names_and_no_paths(name, tmp_path):
    path = tmp_path / "data.npz"
    member(path, name)
    assert np.array_equal(read(path)[0].numpy(), X)
    assert os.listdir(tmp_path) == ["data.npz"]


def test_a_deflated_member_longer_than_its_array_is_checked_to_its_end(tmp_path, monkeypatch):
    """The checksum is compared however early the array ends."""
    buffer = io.BytesIO()
    np.save(buffer, X)
    path = tmp_path / "data.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", buffer.getvalue() + bytes(1000))
    assert np.array_equal(read(path)[0].numpy(), X)
    total = zlib.crc32(buffer.getvalue() + bytes(1000))
    patched(path, struct.pack("<L", total), struct.pack("<L", total ^ 1))
    with pytest.raises(DataError, match="CRC"):
        read(path)


def tensors(entries: str, data: bytes = bytes(64)) -> bytes:
    return struct.pack("<Q", len(entries)) + entries.encode() + data


@pytest.mark.parametrize(
    "content",
    [
        tensors('{"x":{"dtype":"F32","shape":[4,4],"data_offsets":[0,65]}}'),
        tensors('{"x":{"dtype":"F32","shape":[5,4],"data_offsets":[0,64]}}'),
        tensors('{"x":{"dtype":"F32","shape":[4,4],"data_offsets":[64,0]}}'),
        tensors('{"x":{"dtype":"F32","shape":[-4,-4],"data_offsets":[0,64]}}'),
        tensors('{"x":{"dtype":"F32","shape":[18446744073709551615,4],"data_offsets":[0,64]}}'),
        tensors('{"x":{"dtype":"F32","shape":["4",4],"data_offsets":[0,64]}}'),
        tensors('{"x":{"dtype":"F99","shape":[4,4],"data_offsets":[0,64]}}'),
        tensors('{"x":{"shape":[4,4],"data_offsets":[0,64]}}'),
        tensors('{"x":7}'),
        tensors('{"x":{"dtype":"F32","shape":[4,4],"data_offsets":[0,64]},'
                '"y":{"dtype":"F32","shape":[4,4],"data_offsets":[0,64]}}'),
        tensors("{" * 5000),
        tensors("{}"),
        struct.pack("<Q", 99_000_000) + b"{}",
    ],
)  # fmt: skip
def test_forged_safetensors(content, tmp_path):
    path = tmp_path / "data.safetensors"
    path.write_bytes(content)
    with pytest.raises(GradscopeError) as error:
        read(path)
    assert "\n" not in str(error.value)


def test_a_file_that_changes_between_two_sweeps(tmp_path, monkeypatch):
    from gradscope.loading import picked

    monkeypatch.setattr(picked, "KEPT", 0)
    path = tmp_path / "data.npz"
    save_npz(path)
    sample = opened(path)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DataError, match=r"broken|ends before"):
        list(sample.batches())
    path.unlink()
    with pytest.raises(DataError):
        list(sample.batches())


def test_a_large_array_is_checked_too(tmp_path: Path) -> None:
    """One flipped bit among forty megabytes, stored as they are."""
    np.savez(tmp_path / "x.npz", x=np.zeros((10 << 20), np.float32).reshape(-1, 8))
    data = bytearray((tmp_path / "x.npz").read_bytes())
    data[20 << 20] ^= 1
    (tmp_path / "x.npz").write_bytes(data)
    with pytest.raises(GradscopeError, match="CRC"):
        opened(tmp_path / "x.npz")
