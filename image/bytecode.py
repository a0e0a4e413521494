"""
A module's byte code as the image holds it: some modules rewritten, to start sooner.

Each change can be left out without another effect, and a module that another version
writes differently is left as it is. README.md beside this file has for each its
reason, its check and its size.
"""

# ruff: noqa: INP001 -- a part of a program, not of a package

from __future__ import annotations

import importlib
import importlib.util
import marshal
import re

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final


APP: Final = Path("app")
LAZY_PACKAGE: Final = """\
from importlib import import_module
PLACES = {places!r}
def __getattr__(name):
    if name not in PLACES:
        raise AttributeError(name)
    place = PLACES[name]
    if not place:
        return import_module("." + name, __name__)
    value = getattr(import_module("." + place, __name__), name)
    globals()[name] = value
    return value
"""
ASYNC_NAMES: Final = {
    "AWorker: TypeAlias = asyncio.Task[None]\n": "",
    "ALock = asyncio.Lock\n": "",
    "class AQueue(asyncio.Queue[T]):\n    pass\n": """\
def __getattr__(name):
    if name == "AWorker":
        return asyncio.Task[None]
    if name == "ALock":
        return asyncio.Lock
    if name == "AQueue":
        return globals().setdefault(name, type(name, (asyncio.Queue,), {}))
    raise AttributeError(name)
""",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One module: its name, its file, and where the file goes."""

    name: str
    source: Path
    target: Path


def to_bytecode(module: Found) -> bytes:
    """Return what a module's file holds; byte code is never compared with a source."""
    rewrite = REWRITTEN.get(module.name)
    text = importlib.util.decode_source(module.source.read_bytes())
    written = text if rewrite is None else rewrite(text, module)
    code = compile(written, f"/{module.target}", "exec", dont_inherit=True)
    header = importlib.util.MAGIC_NUMBER + (0b01).to_bytes(4, "little") + bytes(8)
    return header + marshal.dumps(code)


def version_constant(_text: str, module: Found) -> str:
    """
    Return a module that knows the version which the original reads from METADATA.

    Reading it imports email, csv and zipfile at each start.
    """
    package = module.name.partition(".")[0]
    (metadata,) = module.source.parent.parent.glob(f"{package}-*.dist-info/METADATA")
    (version,) = re.findall(r"^Version: (\S+)$", metadata.read_text(), re.MULTILINE)
    return f"__version__ = {version!r}\n"


def lazy_package(_text: str, module: Found) -> str:
    """
    Return a package that has the names of the original, each loaded when asked for.

    psycopg imports asyncio, of which the gate uses nothing, and it is large.
    """
    places: dict[str, str] = {}
    for file in sorted(module.source.parent.glob("*.py")):
        if file.stem != "__init__" and not file.stem.startswith("windows"):
            part = importlib.import_module(f"{module.name}.{file.stem}")
            places |= dict.fromkeys(getattr(part, "__all__", ()), file.stem)
            places[file.stem] = ""
    return LAZY_PACKAGE.format(places=places)


def lazy_async(text: str, _module: Found) -> str:
    """Return psycopg's helpers with those for asyncio made when they are asked for."""
    for eager, lazy in ASYNC_NAMES.items():
        text = text.replace(eager, lazy)
    return text


REWRITTEN: Final[Mapping[str, Callable[[str, Found], str]]] = {
    "asyncio": lazy_package,
    "psycopg._acompat": lazy_async,
    "psycopg.version": version_constant,
    "psycopg_binary.version": version_constant,
}
