"""
Fetch a large body of real SQL: Debian's sources of PostgreSQL, extensions, programs.

Goes through apt-get, with lists and downloads of its own; installs nothing. Only the
`.sql` files are kept.
"""

from __future__ import annotations

import subprocess
import tarfile

from pathlib import Path
from typing import Final


SUITES: Final = ("sid", "trixie", "bookworm", "bullseye")
KEYRING: Final = "/usr/share/keyrings/debian-archive-keyring.gpg"
# Regression tests; extensions; schemas and data of programs that know PostgreSQL.
PACKAGES: Final = (
    *("postgresql-13", "postgresql-15", "postgresql-17", "postgresql-18"),
    *("postgis", "timescaledb", "pgtap", "pg-partman", "pg-repack", "pgq", "pgq-node"),
    *("pgvector", "orafce", "pgrouting", "plpgsql-check", "powa-archivist", "pgagent"),
    *("postgresql-semver", "zabbix", "bacula", "freeradius", "kamailio", "pdns"),
    *("icinga2", "mediawiki", "matrix-synapse"),
)


def fetch(folder: Path) -> list[Path]:
    """Return a folder of .sql files for each package, fetched unless it is there."""
    made = folder / "sql"
    missing = [name for name in PACKAGES if not (made / name).is_dir()]
    if missing:
        apt = _Apt(folder / "apt")
        for name in missing:
            for archive in apt.download(name):
                _keep_sql(archive, made / name)
                archive.unlink()
    return sorted(path for path in made.iterdir() if path.is_dir())


class _Apt:
    """apt-get with sources, lists and downloads in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        lists, cache = folder / "lists", folder / "cache"
        for made in (lists / "partial", cache / "archives/partial"):
            made.mkdir(parents=True, exist_ok=True)
        sources = folder / "sources.list"
        sources.write_text(
            "".join(
                f"deb-src [signed-by={KEYRING}] http://deb.debian.org/debian {s} main\n"
                for s in SUITES
            )
        )
        self._command = [
            *("apt-get", "-qq", "-o", f"Dir::Etc::SourceList={sources}"),
            *("-o", "Dir::Etc::SourceParts=-", "-o", f"Dir::State::Lists={lists}"),
            *("-o", f"Dir::Cache={cache}", "-o", "APT::Sandbox::User=root"),
        ]
        subprocess.run([*self._command, "update"], check=True)

    def download(self, package: str) -> list[Path]:
        """Return a package's archives, of the newest suite whose files are there."""
        source = [*self._command, "source", "--download-only"]
        for suite in SUITES:
            done = subprocess.run(
                [*source, f"{package}/{suite}"],
                cwd=self._folder,
                capture_output=True,
                check=False,
            )
            if done.returncode == 0:
                break
        return [
            path for path in self._folder.glob("*.orig*.tar.*") if path.suffix != ".asc"
        ]


def _keep_sql(archive: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as members:
        for member in members:
            content = members.extractfile(member) if member.isfile() else None
            if content is None or not member.name.endswith(".sql"):
                continue
            inside = Path(*Path(member.name).parts[1:])
            if inside.is_absolute() or ".." in inside.parts:
                continue
            path = folder / inside
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.read())
