"""Damage to JSON and TOML: the text stays well formed, its values are not what they should be."""

from __future__ import annotations

import copy
import json
import random
import re
from typing import Any

from tests.fuzzing import raw

_DEEP = "[" * 400 + "]" * 400
ODD: tuple[Any, ...] = (
    None, True, 0, -1, 1 << 31, 1 << 63, -(1 << 63) - 1, 10**400, 1e308, -1e308, 5e-324,
    float("nan"), float("inf"), "", "\0", "../../x", "/dev/zero", "é\u202e\ud800", "x" * 5000,
    "1e999", "__class__", [], {}, [[]], {"": {}}, [1, "a", None], json.loads(_DEEP),
)  # fmt: skip


def _places(node: Any) -> list[tuple[Any, Any]]:
    """Each container with a key of it."""
    found, left = [], [node]
    while left:
        at = left.pop()
        keys = list(at) if isinstance(at, dict) else range(len(at)) if isinstance(at, list) else ()
        for key in keys:
            found.append((at, key))
            left.append(at[key])
    return found


def changed(tree: Any, rng: random.Random) -> Any:
    """One to three values or keys of a tree are others."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.choice((1, 1, 2))):
        places = _places(tree)
        if not places:
            return copy.deepcopy(rng.choice(ODD))
        at, key = rng.choice(places)
        action = rng.randrange(6)
        if action < 3:
            at[key] = copy.deepcopy(rng.choice(ODD))
        elif action == 3:
            del at[key]
        elif action == 4:
            other, name = rng.choice(places)
            if name in (other if isinstance(other, dict) else range(len(other))):
                at[key] = copy.deepcopy(other[name])
        elif isinstance(at, dict):
            at[rng.choice((f"{key}x", str(key).upper(), "", "a.b", "\0"))] = at.pop(key)
        else:
            at.insert(key, copy.deepcopy(at[key]))
    return tree


def json_text(data: bytes, rng: random.Random) -> bytes:
    """The same for a JSON file; now and then damage to its bytes, or a key twice."""
    if rng.random() < 0.2:
        return raw.damaged(data, rng)
    text = json.dumps(changed(json.loads(data), rng), indent=rng.choice((None, 2)))
    if rng.random() < 0.1:
        text = text.replace("{", '{"schema": 1, "schema": "x", ', 1)
    return text.encode("utf-8", "surrogatepass")


_VALUES = (
    "nan", "-inf", "1e999", "9" * 400, "-1", "0", "true", "''", '"\\u0000"', "[]", "{}",
    "1979-05-27", "[[" * 300 + "]]" * 300, "{a={b={c=1}}}", '"' + "x" * 5000 + '"', '"../../../x"',
    '"/dev/zero"', '"\\U0001F600"', "0x7fffffffffffffffffff", "[1, 'a']",
)  # fmt: skip


def toml_text(data: bytes, rng: random.Random) -> bytes:
    """Values, keys and tables of a TOML file are others."""
    if rng.random() < 0.2:
        return raw.damaged(data, rng)
    lines = data.decode().splitlines()
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(lines))
        action = rng.randrange(5)
        if action < 3 and "=" in lines[at]:
            lines[at] = re.sub(r"=.*", lambda _: "= " + rng.choice(_VALUES), lines[at], count=1)
        elif action == 3:
            lines.insert(rng.randrange(len(lines) + 1), lines[at])
        else:
            lines[at] = rng.choice(("[" + "a." * 500 + "b]", "[[models]]", "[]", "x.y.z = 1", "="))
    return "\n".join(lines).encode()
