"""
The judge of a line of the log, by docs/log.schema.json.

It knows the words that this schema uses and no others. ``.ci/run config`` asks a
validator of JSON Schema itself about the schema, and about lines that a run wrote.
"""

from __future__ import annotations

import json
import re

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final


SCHEMA: Final[Mapping[str, Any]] = json.loads(
    (Path(__file__).resolve().parents[1] / "docs/log.schema.json").read_text("utf-8")
)
# A boolean is an int in Python, and none in JSON.
TYPES: Final[Mapping[str, Callable[[object], bool]]] = {
    "array": lambda value: isinstance(value, list),
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: type(value) is int,
    "null": lambda value: value is None,
    "number": lambda value: type(value) in {int, float},
    "string": lambda value: isinstance(value, str),
}


def find_faults(line: Mapping[str, Any]) -> list[str]:
    """Return what of a line of the log the schema does not allow."""
    name = line.get("event")
    if {"$ref": f"#/$defs/{name}"} not in SCHEMA["oneOf"]:
        return [f"there is no event {name}"]
    event = SCHEMA["$defs"][name]
    allowed = {**SCHEMA["properties"], **event["properties"]}
    required = [*SCHEMA["required"], *event["required"]]
    return [
        *(f"{name}: {field} is missing" for field in required if field not in line),
        *(f"{name}: {field} is too much" for field in line if field not in allowed),
        *(
            f"{name}: {field} is {line[field]!r}"
            for field in allowed
            if field in line and not _fits(line[field], allowed[field])
        ),
    ]


def _fits(value: object, schema: Mapping[str, Any]) -> bool:
    """Judge a value by each word of its schema."""
    return all(WORDS[word](value, rule) for word, rule in schema.items())


def _is_of_type(value: object, kinds: str | list[str]) -> bool:
    return any(
        TYPES[kind](value) for kind in ([kinds] if isinstance(kinds, str) else kinds)
    )


def _refers(value: object, target: str) -> bool:
    return _fits(value, SCHEMA["$defs"][target.removeprefix("#/$defs/")])


WORDS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "$ref": _refers,
    "anyOf": lambda value, choices: any(_fits(value, choice) for choice in choices),
    "const": lambda value, rule: value == rule,
    "description": lambda *_: True,
    "enum": lambda value, words: value in words,
    "items": lambda value, rule: all(_fits(item, rule) for item in value),
    "minimum": lambda value, least: (
        not isinstance(value, int | float) or value >= least
    ),
    "pattern": lambda value, rule: (
        not isinstance(value, str) or re.search(rule, value) is not None
    ),
    "type": _is_of_type,
}
