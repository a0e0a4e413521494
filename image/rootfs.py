"""
What the image holds: run in the Dockerfile's first stage, with its interpreter.

    python image/rootfs.py PACKAGES SOURCE OUTPUT [EXTRAS]

Follows the imports of SOURCE/entrypoint.py through PACKAGES and the standard library,
lazy ones included, and lays out byte code, extension modules, shared libraries and the
few files of /etc that they need: OUTPUT/base, and the gate's own code in OUTPUT/gate.
Of an extra's SDK that is what ``extras`` says. The files depend on the inputs alone, so
that two builds give the same layers.
"""

# ruff: noqa: INP001 -- a program, not a package

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig

from collections.abc import Iterable, Iterator, Sequence
from modulefinder import Module, ModuleFinder
from pathlib import Path
from typing import Final

from bytecode import APP, Found, to_bytecode
from extras import EXTRAS, FOR_HTTP, Extra


STDLIB: Final = Path(sysconfig.get_path("stdlib"))
REPLACED: Final = Path(__file__).with_name("replaced")
# Reached by imports that the gate never executes; each would bring a library or much
# code of its own.
EXCLUDED: Final = (
    *("_hashlib", "_ssl"),  # a second OpenSSL; libpq has its own
    *("_bz2", "_lzma", "bz2", "gzip", "lzma", "tarfile"),  # archives
    *("bdb", "doctest", "pdb", "pydoc", "rlcompleter", "unittest"),  # debugging
    *("_pyrepl", "cmd", "code", "codeop", "curses", "readline", "tkinter"),  # terminals
    *("email", "ftplib", "html", "http", "mimetypes", "socketserver", "urllib"),
    *("csv", "importlib.metadata", "webbrowser", "zipfile"),
    *("multiprocessing", "plistlib", "py_compile", "runpy", "sqlite3", "xml", "xmlrpc"),
    *("_pydatetime", "_pydecimal", "_pyio", "_strptime"),  # second implementations
    *("_aix_support", "_android_support", "_apple_support", "_ios_support"),
    *("_osx_support", "nturl2path"),
    # Want packages that are not here.
    *("structlog._greenlets", "structlog.twisted", "tenacity.tornadoweb"),
    *("psycopg.pq._debug", "psycopg.pq._pq_ctypes", "psycopg.pq.pq_ctypes"),
)
# Found by name at run time.
NAMED: Final = (
    *("encodings.aliases", "encodings.ascii", "encodings.idna", "encodings.latin_1"),
    *("encodings.utf_8", "encodings.utf_8_sig", "unicodedata"),
    sysconfig._get_sysconfigdata_name(),  # type: ignore[attr-defined]  # noqa: SLF001
)
# CA certificates: sslrootcert=system. The others: what a C library asks for.
CERTIFICATES: Final = Path("/etc/ssl/certs/ca-certificates.crt")
ETC: Final = {
    "passwd": "root:x:0:0:root:/:/sbin/nologin\n"
    "gate:x:65532:65532:migration-gate:/:/sbin/nologin\n",
    "group": "root:x:0:\ngate:x:65532:\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}


def main(packages: Path, source: Path, output: Path, *, names: str = "") -> None:
    """Lay out both parts of the image."""
    base, gate = output / "base", output / "gate"
    extras = [EXTRAS[name] for name in names.split()]
    modules = list(find_modules(packages, source, extras))
    for module in modules:
        is_ours = module.source.is_relative_to(source)
        copy_module(module, gate if is_ours else base)
    interpreter = Path(os.path.realpath(sys.executable))
    copy_program(interpreter, base)
    link(base / "usr/local/bin/python3", interpreter.name)
    (base / STDLIB.relative_to("/") / "lib-dynload").mkdir(exist_ok=True)
    extensions = [found.source for found in modules if is_extension(found.source)]
    copy_libraries([interpreter, *extensions], packages, base)
    copy_metadata(packages, base)
    for pattern in sorted({pattern for extra in extras for pattern in extra.data}):
        for file in sorted(packages.glob(pattern)):
            copy(file, base / APP / file.relative_to(packages))
    copy(STDLIB / "LICENSE.txt", base / STDLIB.relative_to("/") / "LICENSE.txt")
    copy(source / "LICENSE", gate / APP / "migration_gate/LICENSE")
    write_etc(base)
    (gate / "migrations").mkdir()
    for part in (base, gate):
        set_times(part)


def find_modules(
    packages: Path, source: Path, extras: Sequence[Extra]
) -> Iterator[Found]:
    """Yield what the gate can import, in order of name."""
    # An SDK speaks TLS by Python's own module, which is not replaced then.
    replaced = [] if extras else [REPLACED]
    roots = dict.fromkeys([*replaced, source, packages], APP)
    path = [*map(str, roots), *sys.path[1:]]
    excluded = set(EXCLUDED) - (FOR_HTTP if extras else set())
    finder = ModuleFinder(path=path, excludes=sorted(excluded))
    finder.run_script(str(source / "entrypoint.py"))
    # A command's module is found by its name, so the package goes in as a whole.
    ours = (
        ".".join(file.relative_to(source).with_suffix("").parts)
        for file in sorted((source / "migration_gate").rglob("*.py"))
    )
    stems = [file.stem for folder in replaced for file in folder.glob("*.py")]
    for name in (*NAMED, *ours, *stems, *of_extras(packages, extras)):
        finder.import_hook(name.removesuffix(".__init__"))
    for name, module in sorted(finder.modules.items()):
        file = file_of(module)
        if file is None:
            continue
        for root, place in roots.items():
            if file.is_relative_to(root):
                yield Found(
                    name=name, source=file, target=place / file.relative_to(root)
                )
                break
        else:
            yield Found(name=name, source=file, target=file.relative_to("/"))


def of_extras(packages: Path, extras: Sequence[Extra]) -> Iterator[str]:
    """Yield the modules that SDKs find by name; a namespace becomes a package."""
    for extra in extras:
        for namespace in extra.namespaces:
            (packages / namespace / "__init__.py").touch()
        yield from extra.modules
        for pattern in extra.whole:
            for file in sorted(packages.glob(pattern)):
                name = file.relative_to(packages).as_posix().partition(".")[0]
                yield name.replace("/", ".")


def file_of(module: Module) -> Path | None:
    """Return the file of a module; None for one that is built in."""
    name: str | None = module.__file__  # type: ignore[attr-defined]  # set in __init__
    return None if name is None else Path(name)


def is_extension(file: Path) -> bool:
    """Tell whether a module is machine code."""
    return file.suffix == ".so"


def copy_module(module: Found, root: Path) -> None:
    """Write a module's byte code in the place of its source, or copy machine code."""
    target = root / module.target
    if is_extension(module.source):
        copy(module.source, target)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.with_suffix(".pyc").write_bytes(to_bytecode(module))


def copy(file: Path, target: Path) -> None:
    """Copy a file, without its owner and times."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, target)


def copy_program(file: Path, root: Path) -> None:
    """Copy machine code to its own place under a root, its folder's links resolved."""
    folder = Path(os.path.realpath(file.parent))
    target = root / folder.relative_to("/") / file.name
    copy(file, target)
    target.chmod(0o755)


def link(path: Path, target: str) -> None:
    """Make a symbolic link."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def copy_libraries(files: Iterable[Path], packages: Path, root: Path) -> None:
    """Copy the shared libraries that these files load, and the loader."""
    libraries = sorted({library for file in files for library in libraries_of(file)})
    for library in libraries:
        if library.is_relative_to(packages):
            copy(library, root / APP / library.relative_to(packages))
        else:
            copy_program(library, root)
    for folder in (Path("/lib"), Path("/lib64")):
        if folder.is_symlink():
            link(root / folder.name, str(folder.readlink()))
    write_package_records(libraries, root)


def libraries_of(file: Path) -> Iterator[Path]:
    """Yield what the loader would load for a file."""
    listing = subprocess.run(  # noqa: S603 -- commands are our own
        ["/usr/bin/ldd", file], check=True, capture_output=True, text=True
    ).stdout
    assert "not found" not in listing, listing  # noqa: S101  # fails the build
    for match in re.finditer(r"(?:=> |^\s*)(/\S+) \(0x", listing, re.MULTILINE):
        yield Path(os.path.normpath(match[1]))


def write_package_records(libraries: Iterable[Path], root: Path) -> None:
    """
    Say which Debian packages the libraries are from, as a scanner looks for it.

    The form is that of the distroless images: a file each in status.d.
    """
    packages = {"ca-certificates"}
    for library in libraries:
        for path in {library, Path(os.path.realpath(library))}:
            owner = query("-S", str(path)) or query("-S", f"*{path}")
            packages.update(
                line.split(": ")[0]
                for line in owner.splitlines()
                if not line.startswith("diversion ")
            )
    folder = root / "var/lib/dpkg/status.d"
    folder.mkdir(parents=True)
    for package in sorted(packages):
        name = package.split(":")[0]
        folder.joinpath(name).write_text(query("-s", package))
        notice = Path("/usr/share/doc", name, "copyright")
        if notice.exists():
            copy(notice, root / notice.relative_to("/"))
    copy(Path("/etc/os-release"), root / "etc/os-release")


def query(*arguments: str) -> str:
    """Ask dpkg-query; nothing when it knows nothing."""
    return subprocess.run(  # noqa: S603 -- commands are our own
        ["/usr/bin/dpkg-query", *arguments], check=False, capture_output=True, text=True
    ).stdout


def copy_metadata(packages: Path, root: Path) -> None:
    """Copy what names each Python package, its licence and what it bundles."""
    for folder in sorted(packages.glob("*.dist-info")):
        for file in sorted(folder.rglob("*")):
            inside = file.relative_to(folder)
            if file.is_file() and (
                inside.parts[0] in {"METADATA", "sboms", "licenses"}
                or inside.name.startswith("LICENSE")
            ):
                copy(file, root / APP / folder.name / inside)


def write_etc(root: Path) -> None:
    """Write the files that the C library reads, and the certificates."""
    for name, text in ETC.items():
        (root / "etc" / name).write_text(text)
    copy(CERTIFICATES, root / CERTIFICATES.relative_to("/"))


def set_times(root: Path) -> None:
    """Give everything the same time, the commit's."""
    time_s = int(os.environ.get("SOURCE_DATE_EPOCH") or 0)
    for path in (root, *sorted(root.rglob("*"))):
        os.utime(path, (time_s, time_s), follow_symlinks=False)


if __name__ == "__main__":
    folders = [Path(argument).resolve() for argument in sys.argv[1:4]]
    main(*folders, names=" ".join(sys.argv[4:]))
