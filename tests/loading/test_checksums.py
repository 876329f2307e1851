"""What is stored in an archive is compared with its checksum, or it is said that it was not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gradscope.config import DataSettings
from gradscope.errors import DataError
from gradscope.loading import numpy_files
from gradscope.loading.sources import open_source

SAID = "was not compared with its checksum; --samples all does it"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    x = np.arange(40_000, dtype=np.float32).reshape(-1, 4)
    np.savez(tmp_path / "d.npz", x=x, y=np.arange(10_000))
    return tmp_path / "d.npz"


def _damaged(file: Path) -> Path:
    data = bytearray(file.read_bytes())
    data[data.index(np.float32(30_001).tobytes())] ^= 1
    file.write_bytes(data)
    return file


@pytest.mark.parametrize("samples", [2, None])
def test_a_member_of_usual_size_is_always_compared(archive: Path, samples: int | None) -> None:
    assert open_source(str(archive), DataSettings(samples=samples)).notes == ()
    with pytest.raises(DataError, match="Bad CRC-32"):
        open_source(str(_damaged(archive)), DataSettings(samples=samples))


def test_a_large_one_if_all_of_it_is_read(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numpy_files, "CHECKED", 9000)
    large = [n for n in open_source(str(archive), DataSettings(samples=2)).notes if SAID in n]
    assert [n.partition(" ")[0] for n in large] == ["'x'", "'y'"]
    assert open_source(str(archive), DataSettings(samples=None)).notes == ()
    _damaged(archive)
    assert len(open_source(str(archive), DataSettings(samples=2)).notes) == 2
    with pytest.raises(DataError, match="Bad CRC-32"):
        open_source(str(archive), DataSettings(samples=None))
