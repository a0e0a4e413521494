"""A file for TLS that cannot be read is told as such, and nothing else with it."""

from __future__ import annotations

import os
import shutil

from collections.abc import Mapping
from pathlib import Path

import pytest

from migration_gate.connection.texts import shorten_text
from tests.bare import Bare, end
from tests.ends import cause
from tests.fix_postgres import Database, NewServer, database_of


# Servers of their own, and waiting: a loaded machine needs longer.
pytestmark = pytest.mark.timeout(60)
# Root reads everything; without these capabilities it does not.
PLAIN = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search")
NOBODY = 65534
HBA = (
    "local all all scram-sha-256",
    "hostssl all all 127.0.0.1/32 scram-sha-256 clientcert=verify-ca",
)


@pytest.fixture
def encrypted(new_server: NewServer) -> Database:
    """Return a database whose server serves TLS."""
    return database_of(new_server(tls=True))


def lock_away(path: Path) -> None:
    """Let the gate's user not read a file or folder."""
    path.chmod(0)
    if os.geteuid() == 0:
        os.chown(path, NOBODY, NOBODY)


def close(tmp_path: Path, environ: Mapping[str, str]) -> Bare:
    """Run a gate, without root's right to read everything, that closes at once."""
    gate = Bare(tmp_path)
    before = PLAIN if os.geteuid() == 0 else ()
    if before and shutil.which("setpriv") is None:
        pytest.skip("root without setpriv reads everything")
    limits = {"GATE_WAIT_TIMEOUT": "60s", "GATE_AUTH_GRACE": "60s"}
    process = gate.start({**environ, **limits}, before=before)
    assert end(process, timeout=20) == 1
    return gate


@pytest.mark.parametrize("keyword", ["sslcert", "sslkey", "sslrootcert", "sslcrl"])
def test_a_file_that_may_not_be_read_is_named_with_the_reason(
    encrypted: Database, tmp_path: Path, keyword: str
) -> None:
    """Before libpq opens it, and whether the server is there or not."""
    file = tmp_path / "file.pem"
    file.write_text("x", "utf-8")
    lock_away(file)
    environ = encrypted.environ() | {
        "POSTGRES_SSL_MODE": "require",
        f"PG{keyword.upper()}": str(file),
        "POSTGRES_PORT": "1",
    }
    verdict = close(tmp_path, environ).verdict
    assert verdict["reason"] == "settings"
    assert verdict["error_message"] == (
        f'connection cannot work: {keyword} names file "{file}", which cannot be read: '
        "permission denied"
    )
    assert verdict["hint"] == cause("file_unreadable").remedy


@pytest.mark.parametrize("mode", ["require", "verify-ca"])
def test_a_home_of_another_user_is_named(
    encrypted: Database, tmp_path: Path, mode: str
) -> None:
    """Nobody has set sslcert or sslkey: libpq looks there of its own."""
    home = tmp_path / "home"
    home.mkdir()
    lock_away(home)
    environ = encrypted.environ() | {"POSTGRES_SSL_MODE": mode, "HOME": str(home)}
    verdict = close(tmp_path, environ).verdict
    assert verdict["error_message"].startswith(
        "connection cannot work: sslcert is not set, and file "
        f'"{home}/.postgresql/postgresql.crt" cannot be read'
    )
    assert verdict["hint"] == cause("home_unreadable").remedy


def test_what_the_hint_about_home_says_helps(
    encrypted: Database, tmp_path: Path
) -> None:
    """A HOME of one's own, where nothing is found."""
    environ = encrypted.environ() | {
        "POSTGRES_SSL_MODE": "require",
        "HOME": str(tmp_path),
        "PGSSLCERTMODE": "disable",
    }
    process = Bare(tmp_path).start(environ, before=PLAIN)
    assert end(process, timeout=20) == 0


def test_where_tls_is_not_asked_for_a_home_does_not_matter(
    encrypted: Database, tmp_path: Path
) -> None:
    """As psql does, without TLS; the one thing told is what the server said."""
    home = tmp_path / "home"
    home.mkdir()
    lock_away(home)
    environ = encrypted.environ() | {"HOME": str(home)}
    process = Bare(tmp_path).start(environ, before=PLAIN)
    assert end(process, timeout=20) == 0


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b"\xda\xb3\x13e\x05", ""),
        (b"hunter2\nmore", ""),
        (b"no certificate or crl found", ": no certificate or crl found"),
        (b"Permission denied", ": Permission denied"),
    ],
)
def test_what_libpq_adds_to_a_files_name_is_told_only_where_it_is_known(
    said: bytes, told: str
) -> None:
    """It may be memory of the process; what stands after it is another failure."""
    start = 'connection to server at "h", port 1 failed: '
    file = 'could not read root certificate file "/ca.pem"'
    text = f"{start}{file}: {said.decode()}\n{start}FATAL:  no"
    assert shorten_text(text) == f"{start}{file}{told} {start}FATAL: no"
    assert shorten_text(f"{start}{file}: {said.decode()}") == f"{start}{file}{told}"
