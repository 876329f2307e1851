"""Files that a model refers to by name: they are inputs as much as the file that names them."""

from __future__ import annotations

import json
from pathlib import Path

from gradscope.errors import LoadError
from gradscope.loading.detect import FileKind, check_file, detect

_MOST = 64 << 20  # bytes of an index


def companions(path: str) -> tuple[str, ...]:
    """Files of external data of an ONNX model, shards of an index; () for anything else.

    Args:
        path: as the user named it; need not be there, and need not be a model.
    """
    file = Path(path)
    try:
        if file.suffix == ".json" and check_file(path).stat().st_size <= _MOST:
            names = _shards(file)
        elif file.is_file() and detect(file) is FileKind.ONNX:
            from gradscope.loading.onnx import external_files

            names = external_files(file)
        else:
            return ()
    except (LoadError, OSError, ValueError):  # whoever reads it says so
        return ()
    return tuple(str(file.parent / name) for name in sorted(names))


def _shards(file: Path) -> set[str]:
    content = json.loads(file.read_text(encoding="utf-8"))
    table = content.get("weight_map") if isinstance(content, dict) else None
    return {str(v) for v in table.values()} if isinstance(table, dict) else set()
