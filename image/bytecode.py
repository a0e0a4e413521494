"""
A module's byte code as the image holds it: some modules rewritten, to start sooner.

Each change can be left out without another effect, and a module that another version
writes differently is left as it is; that a start then compiles again is seen by
tests/image/test_image.py. What they buy is in bench/startup.md.
"""

# ruff: noqa: INP001 -- a part of a program, not of a package

from __future__ import annotations

import ast
import importlib
import importlib.util
import marshal
import re
import subprocess
import sys

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final


APP: Final = Path("app")
RECORDER: Final = Path(__file__).with_name("compiled.py")
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
# Executed as it is written, or taken from the module whose class it is for.
EXECUTES: Final = """\
        exec(txt, self.globals, ns)
        fns = ns['__create_fn__'](**self.locals)
"""
EXECUTES_OR_TAKES: Final = """\
        code = self.globals.get('__dataclass_code__', {}).get(txt)
        if code is None:
            exec(txt, self.globals, ns)
            create_fn = ns['__create_fn__']
        else:
            create_fn = types.FunctionType(code, self.globals)
        fns = create_fn(**self.locals)
"""
COMPILES: Final = "def compile(p, flags=0):\n"
COMPILES_OR_TAKES: Final = """\
def compile(p, flags=0):
    if isstring(p) and (p, flags) in PATTERNS:
        all_flags, code, groups, numbers, names = PATTERNS[p, flags]
        return _sre.compile(p, all_flags, list(code), groups, dict(numbers), names)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What modules compile when they are imported; the form is told in compiled.py."""

    texts: Mapping[str, Sequence[str]]
    patterns: Mapping[tuple[str | bytes, int], tuple[Any, ...]]


def record_compiled(
    folders: Iterable[Path], modules: Sequence[Found], named: Iterable[str]
) -> Record:
    """
    Ask modules what they compile, in an interpreter that has imported nothing.

    Those of the packages, with what they import, and those that are found by name.
    """
    names = {module.name for module in modules}
    inside = [m.name for m in modules if m.target.is_relative_to(APP)]
    texts, patterns = marshal.loads(  # noqa: S302  # our own
        subprocess.run(  # noqa: S603  # our own
            (sys.executable, "-I", "-S", RECORDER, *folders),
            input="\n".join((*inside, *named)).encode(),
            check=True,
            stdout=subprocess.PIPE,
        ).stdout
    )
    wanted = {
        key: code
        for name in sorted(names.intersection(patterns))
        for key, code in patterns[name].items()
    }
    return Record(texts=texts, patterns=wanted)


def to_bytecode(module: Found, record: Record) -> bytes:
    """Return what a module's file holds; byte code is never compared with a source."""
    rewrite = REWRITTEN.get(module.name)
    text = module.source.read_text()
    tree = ast.parse(text if rewrite is None else rewrite(text, module, record))
    texts = record.texts.get(module.name, ())
    if texts:
        place = first_place(tree)
        tree.body[place:place] = ast.parse(methods(texts)).body
    code = compile(tree, f"/{module.target}", "exec", dont_inherit=True)
    header = importlib.util.MAGIC_NUMBER + (0b01).to_bytes(4, "little") + bytes(8)
    return header + marshal.dumps(code)


def first_place(tree: ast.Module) -> int:
    """Return where a statement may come first: behind a docstring and the future."""
    for place, node in enumerate(tree.body):
        is_future = isinstance(node, ast.ImportFrom) and node.module == "__future__"
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if not is_future and not is_text:
            return place
    return len(tree.body)


def methods(texts: Iterable[str]) -> str:
    """Return statements that keep the code of each text under the text."""
    kept = "".join(
        f"{text}\n__dataclass_code__[{text!r}] = __create_fn__.__code__\n"
        for text in dict.fromkeys(texts)
    )
    return f"__dataclass_code__ = {{}}\n{kept}del __create_fn__\n"


def keep_methods(text: str, _module: Found, _record: Record) -> str:
    """
    Return dataclasses that takes the code of a class's methods from its module.

    And without its one call of inspect.unwrap(), written out: each class with slots
    makes it, and inspect is large.
    """
    return text.replace(EXECUTES, EXECUTES_OR_TAKES).replace(
        "import inspect\n            member = inspect.unwrap(member)",
        "while hasattr(member, '__wrapped__'): member = member.__wrapped__",
    )


def keep_patterns(text: str, _module: Found, record: Record) -> str:
    """Return the compiler of patterns with those that modules ask it for."""
    known = text.replace(COMPILES, COMPILES_OR_TAKES)
    return f"{known}\nPATTERNS = {record.patterns!r}\n"


def version_constant(_text: str, module: Found, _record: Record) -> str:
    """
    Return a module that knows the version which the original reads from METADATA.

    Reading it imports email, csv and zipfile at each start.
    """
    package = module.name.partition(".")[0]
    (metadata,) = module.source.parent.parent.glob(f"{package}-*.dist-info/METADATA")
    (version,) = re.findall(r"^Version: (\S+)$", metadata.read_text(), re.MULTILINE)
    return f"__version__ = {version!r}\n"


def lazy_package(_text: str, module: Found, _record: Record) -> str:
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


def lazy_async(text: str, _module: Found, _record: Record) -> str:
    """Return psycopg's helpers with those for asyncio made when they are asked for."""
    for eager, lazy in ASYNC_NAMES.items():
        text = text.replace(eager, lazy)
    return text


REWRITTEN: Final[Mapping[str, Callable[[str, Found, Record], str]]] = {
    "asyncio": lazy_package,
    "dataclasses": keep_methods,
    "psycopg._acompat": lazy_async,
    "psycopg.version": version_constant,
    "psycopg_binary.version": version_constant,
    "re._compiler": keep_patterns,
}
