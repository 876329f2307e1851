"""The folder beside a repaired model that says how it was made."""

from __future__ import annotations

import hashlib
from pathlib import Path

from gradscope.config import FixSettings, Settings
from gradscope.errors import OutputError
from gradscope.files import write_atomic
from gradscope.report import RUN_MARK, run_files
from gradscope.treatment import Treatment


def folder_of(out: str) -> Path:
    """Where the run of a repaired model is kept."""
    return Path(f"{out}.run")


def check_folder(out: str) -> None:
    """Refuse, before any work, a folder that is there and is no run's.

    Raises:
        OutputError: names it.
    """
    folder = folder_of(out)
    if folder.exists() and not (folder / RUN_MARK).is_file():
        raise OutputError(
            f"'{folder}' is to hold the run and is something else already",
            where="--out",
            hint="Name another file, or move it away.",
        )


def emit_run(treatment: Treatment, settings: Settings, repair: FixSettings) -> str:
    """Write the folder; an earlier run of the same name is replaced file by file.

    Raises:
        OutputError: it cannot be written.
    """
    assert repair.out is not None
    folder = folder_of(repair.out)
    read = (settings.model, settings.data.data, settings.data.val, repair.out)
    hashes = {name: _sha256(Path(name)) for name in read if name and Path(name).is_file()}
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"the folder '{folder}' cannot be made ({error.strerror or error})",
            where="--out",
            hint="The repaired model itself is written.",
        ) from error
    for name, content in run_files(treatment, settings, repair, hashes).items():
        write_atomic(str(folder / name), content.encode(), option="--out")
    return str(folder)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
