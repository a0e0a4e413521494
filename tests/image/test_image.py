"""
The built image: what it holds, how large it is, and that it runs as manifests run it.
"""

from __future__ import annotations

import gzip
import json
import re
import secrets
import shutil
import tarfile
import time

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from migration_gate import __version__
from tests.fix_image import (
    BUILD_S,
    HARDENED,
    IMAGE,
    ROOT,
    ContainerDatabase,
    await_database,
    build,
    docker,
    remove_database,
    start_database,
)


pytestmark = [pytest.mark.docker, pytest.mark.timeout(BUILD_S)]

DISK_MAX_BYTES = 40_000_000
COMPRESSED_MAX_BYTES = 15_000_000
STARTUP_RATIO_MAX = 1.15
COMMIT_TIME = "1700000000"
# Looked at, and compatible with passing the image on.
PACKAGE_LICENCES = {
    "psycopg": "LGPL-3.0-only",
    "psycopg-binary": "LGPL-3.0-only",
    "structlog": "MIT OR Apache-2.0",
    "tenacity": "Apache-2.0",
}
# Their notices are beside them, in /usr/share/doc.
DEBIAN_PACKAGES = {
    *("ca-certificates", "libc6", "libexpat1", "libffi8", "libgcc-s1", "libmpdec4"),
    *("libuuid1", "libzstd1", "zlib1g"),
}
# What psycopg's wheel brings.
BUNDLED_LIBRARIES = {
    "libcom_err": "MIT",
    "libcrypt": "LGPL-2.1-or-later",
    "libcrypto": "Apache-2.0",
    "libgssapi_krb5": "MIT",
    "libk5crypto": "MIT",
    "libkeyutils": "LGPL-2.1-or-later",
    "libkrb5": "MIT",
    "libkrb5support": "MIT",
    "liblber": "OLDAP-2.8",
    "libldap": "OLDAP-2.8",
    "libpq": "PostgreSQL",
    "libsasl2": "BSD-4-Clause",
    "libselinux": "libselinux-1.0",
    "libssl": "Apache-2.0",
}
# Start-up, in the image and with its interpreter: the CPU time of both ways in turn.
STARTS = """
import os, sys
ways = {
    "bare": ["-c", "import psycopg; psycopg.connect().execute('select 1')"],
    "gate": ["-E", "-S", "-X", "utf8", "-X", "lazy_imports=all", "/app/entrypoint.pyc"],
}
taken = dict.fromkeys(ways, 0)
null = [(os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0)]
for number in range(20):
    for name, way in ways.items():
        before = sum(os.times()[2:4])
        arguments = [sys.executable, *way]
        pid = os.posix_spawn(arguments[0], arguments, os.environ, file_actions=null)
        assert os.waitpid(pid, 0)[1] == 0
        taken[name] += sum(os.times()[2:4]) - before
print(taken["gate"] / taken["bare"])
"""
# A run with nothing pending, and on its last line all that it has loaded.
LOADED = """
import json, os, sys
sys.path.insert(0, "/app")
from migration_gate.commands.main import main
code = main([], os.environ)
print(json.dumps(sorted(sys.modules)), flush=True)
os._exit(code)
"""
# The gate's own that a start with nothing pending loads. A module that is not here
# costs each pod of each rollout its time: import it where it is used, or say here that
# every start needs it.
OURS = """
commands commands.calls commands.main commands.migrate commands.signals commands.steps
connection connection.asking connection.causes connection.connect connection.dialing
connection.limited connection.opening connection.qualified connection.servers
connection.wait connection.waits
files files.folder files.listing files.migration files.names files.reading
history history.catalogue history.choice history.look history.rows history.table
history.trust
planning planning.agreement planning.plan
report report.errors report.events report.log report.outcomes report.verdict
session session.session
settings settings.connection_string settings.database settings.durations
settings.environment settings.faults settings.known settings.libpq settings.parsing
settings.reading settings.settings settings.sources
statements statements.contents
"""
# What else they can do without: the least of these costs as much as five of ours.
TOO_DEAR = {
    "inspect",  # dataclasses asks it about each class with slots: 3 ms
    "pathlib",  # 2 ms; a folder's name is a text until something is written there
    "structlog.processors",  # 4 ms, with tracebacks
    *("argparse", "asyncio.events", "tempfile", "tenacity", "traceback"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that the gate's user may read, unlike pytest's own."""
    tmp_path.chmod(0o755)
    return tmp_path


def inspect(image: str) -> dict[str, Any]:
    """Return what the engine knows of an image or container."""
    described: list[dict[str, Any]] = json.loads(docker("inspect", image).stdout)
    return described[0]


@pytest.fixture(scope="session")
def archive(image: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the image, as one archive."""
    path = tmp_path_factory.mktemp("image") / "image.tar"
    container = docker("create", image).stdout.strip()
    try:
        docker("export", "--output", str(path), container)
    finally:
        docker("rm", container)
    return path


@pytest.fixture(scope="session")
def contents(archive: Path) -> list[tarfile.TarInfo]:
    """Every file of the image."""
    with tarfile.open(archive) as files:
        return files.getmembers()


def test_the_image_is_at_most_40_mb_on_disk(image: str) -> None:
    """All layers together, as `docker images` shows it."""
    assert inspect(image)["Size"] <= DISK_MAX_BYTES


def test_the_image_is_at_most_15_mb_compressed(image: str, tmp_path: Path) -> None:
    """As `docker save IMAGE | gzip -9` measures it."""
    archive = tmp_path / "image.tar"
    docker("save", "--output", str(archive), image)
    assert len(gzip.compress(archive.read_bytes(), 9)) <= COMPRESSED_MAX_BYTES


def test_the_image_holds_no_shell_no_tool_and_no_source(
    contents: list[tarfile.TarInfo],
) -> None:
    """The interpreter is the only program; the loader is a library that can run."""
    files = [file for file in contents if file.isfile() and file.size]
    programs = {
        Path(file.name).name
        for file in files
        if file.mode & 0o111 and ".so" not in Path(file.name).name
    }
    assert len(programs) == 1
    assert programs.pop().startswith("python3.")
    names = [file.name for file in files]
    assert [name for name in names if name.endswith((".py", ".sh", ".a", ".h"))] == []
    unwanted = ("pip/", "ensurepip", "setuptools", "unittest", "/tests/", "__pycache__")
    assert [name for name in names if any(part in name for part in unwanted)] == []


def test_no_module_and_no_library_is_there_twice(
    contents: list[tarfile.TarInfo],
) -> None:
    """Least of all OpenSSL, the largest of them."""
    names = [Path(file.name).name for file in contents if file.isfile()]
    for library in ("libcrypto", "libssl", "libpq", "libc.so"):
        found = [name for name in names if name.startswith(library) and ".so" in name]
        assert len(found) == 1


def test_every_part_has_a_licence_that_is_known(archive: Path) -> None:
    """What nobody has looked at does not get in; each notice is in the image."""
    packages, debian, bundled = {}, set(), set()
    with tarfile.open(archive) as files:
        for file in files:
            path = Path(file.name)
            if path.name == "METADATA":
                text = getattr(files.extractfile(file), "read", bytes)().decode()
                name = re.findall(r"^Name: (\S+)$", text, re.MULTILINE)[0]
                found = re.findall(r"^License-Expression: (.+)$", text, re.MULTILINE)
                packages[name] = found[0]
            elif path.parent.name == "status.d":
                debian.add(path.name)
            elif path.parent.name == "psycopg_binary.libs":
                bundled.add(path.name.partition("-")[0])
        names = set(files.getnames())
    assert packages == PACKAGE_LICENCES
    assert debian - DEBIAN_PACKAGES == set()
    assert bundled - BUNDLED_LIBRARIES.keys() == set()
    python = f"usr/local/lib/python{'.'.join(map(str, python_version(archive)))}"
    notices = {f"usr/share/doc/{package}/copyright" for package in debian}
    assert notices <= names
    assert {f"{python}/LICENSE.txt", "app/migration_gate/LICENSE"} <= names


def python_version(archive: Path) -> tuple[int, int]:
    """Return the version of the interpreter inside."""
    with tarfile.open(archive) as files:
        (found,) = {
            (match[1], match[2])
            for name in files.getnames()
            if (match := re.fullmatch(r"usr/local/bin/python(\d+)\.(\d+)", name))
        }
    return int(found[0]), int(found[1])


def test_nothing_can_be_changed_by_the_user_it_runs_as(
    contents: list[tarfile.TarInfo],
) -> None:
    """Even where the root is not read-only."""
    made_by_the_engine = ("dev", "etc/hostname", "etc/hosts", "etc/resolv.conf")
    ours = [file for file in contents if not file.name.startswith(made_by_the_engine)]
    assert {(file.uid, file.gid) for file in ours} == {(0, 0)}
    assert [file.name for file in ours if not file.issym() and file.mode & 0o022] == []


def test_the_image_says_what_it_is(image: str) -> None:
    """In labels, with the package's own version."""
    config = inspect(image)["Config"]
    labels = config["Labels"]
    prefix = "org.opencontainers.image."
    assert labels[f"{prefix}title"] == "migration-gate"
    assert labels[f"{prefix}version"] == __version__
    assert labels[f"{prefix}licenses"] == "Apache-2.0"
    assert config["User"] == "65532:65532"
    assert "Cmd" not in config or config["Cmd"] is None


def test_two_builds_of_one_commit_give_the_same_layers(image: str) -> None:
    """Built from nothing twice, with the time of the commit."""
    layers = []
    for number in (1, 2):
        tag = f"{image}-{number}"
        again = ("--no-cache", "--build-arg", f"SOURCE_DATE_EPOCH={COMMIT_TIME}")
        build(*again, tag=tag)
        described = inspect(tag)
        layers.append((described["RootFS"]["Layers"], described["Created"]))
        docker("rmi", tag)
    assert layers[0] == layers[1]


def test_the_command_is_the_argument(image: str) -> None:
    """Also where there is no network at all."""
    version = docker("run", "--rm", *HARDENED, "--network=none", image, "--version")
    assert version.stdout == f"migration-gate {__version__}\n"
    assert "status" in docker("run", "--rm", image, "--help").stdout


@pytest.mark.parametrize("user", ["65532:65532", "12345:54321", "1000", "0:0"])
def test_any_user_can_run_it(container_database: ContainerDatabase, user: str) -> None:
    """Read-only, without a capability, and with a uid that no file names."""
    migrate = container_database.gate(
        options=["--user", user], migrations=ROOT / "migrations"
    )
    assert (migrate.exit_code, migrate.verdict["event"]) == (0, "gate.opened")


def test_each_command_runs(container_database: ContainerDatabase) -> None:
    """With the exit code that a script relies on."""

    def gate(*command: str) -> int:
        done = container_database.gate(*command, migrations=ROOT / "migrations")
        return done.exit_code

    assert gate("wait") == 0
    assert gate("plan") == 0
    assert gate("status", "--json") == 1
    assert gate("migrate") == 0
    assert gate("check") == 0
    assert gate("status") == 0
    assert gate("resolve", "001_initial_schema.sql", "--applied") == 0
    assert gate("nonsense") == 1


def test_new_writes_into_a_mounted_folder(image: str, tmp_path: Path) -> None:
    """The one command that writes; its root is read-only all the same."""
    tmp_path.chmod(0o777)
    done = docker(
        *("run", "--rm", *HARDENED, "--network=none"),
        *("--volume", f"{tmp_path}:/migrations", image, "new", "add customers"),
    )
    assert done.stdout == "/migrations/001_add_customers.sql\n"
    assert (tmp_path / "001_add_customers.sql").stat().st_size > 0


def test_an_image_without_migrations_closes(
    container_database: ContainerDatabase,
) -> None:
    """Most often a mount is missing."""
    empty = container_database.gate()
    assert (empty.exit_code, empty.verdict["reason"]) == (1, "files")


def test_a_derived_image_is_two_lines(
    container_database: ContainerDatabase, image: str, tmp_path: Path
) -> None:
    """FROM and COPY."""
    shutil.copytree(ROOT / "migrations", tmp_path / "migrations")
    dockerfile = f"FROM {image}\nCOPY migrations /migrations\n"
    (tmp_path / "Dockerfile").write_text(dockerfile)
    derived = f"migration-gate-derived:{secrets.token_hex(4)}"
    docker("build", "--quiet", "--tag", derived, str(tmp_path))
    try:
        assert container_database.gate(image=derived).exit_code == 0
    finally:
        docker("rmi", derived)
    applied = container_database.execute("SELECT count(*) FROM schema_migrations")
    assert int(applied) == len(
        [file for file in tmp_path.rglob("*.sql") if ".down." not in file.name]
    )


def test_a_failing_migration_closes(
    container_database: ContainerDatabase, folder: Path
) -> None:
    """The whole log: events, and the line for people on stderr."""
    (folder / "001_größe.sql").write_text("SELECT 1;\nSELECT 1 / 0; -- ß\n")
    failed = container_database.gate(migrations=folder)
    assert failed.exit_code == 1
    verdict = failed.verdict
    assert (verdict["reason"], verdict["sqlstate"]) == ("migration_failed", "22012")
    assert (verdict["file"], verdict["line"]) == ("001_größe.sql", 2)
    assert failed.stderr.startswith("migration-gate: closed: ")
    assert len(failed.stdout.splitlines()[-1].encode()) < 2048


def test_every_module_in_the_image_can_be_imported(image: str) -> None:
    """Nothing that a rare path imports was left out: byte code brings its imports."""
    program = """
import importlib, os, sys
sys.path.insert(0, "/app")
import psycopg
for folder, _, files in os.walk("/app"):
    for file in files:
        if file.endswith(".pyc") and file != "entrypoint.pyc":
            name = os.path.join(folder, file)[len("/app/"):-len(".pyc")]
            importlib.import_module(name.replace("/", "."))
            print(name)
"""
    python = ("--entrypoint", "/usr/local/bin/python3")
    imported = docker("run", "--rm", *HARDENED, *python, image, "-ESc", program).stdout
    here = {
        str(file.relative_to(ROOT).with_suffix(""))
        for file in (ROOT / "migration_gate").rglob("*.py")
    }
    assert here <= set(imported.split())


def test_a_start_costs_little_more_than_the_bare_driver(
    container_database: ContainerDatabase,
) -> None:
    """With nothing pending; the driver on the same interpreter, from the same files."""
    migrations = ("--volume", f"{ROOT / 'migrations'}:/migrations:ro")
    assert container_database.gate(options=migrations).exit_code == 0
    environ = {
        "PYTHONPATH": "/app",
        "PGHOST": container_database.host,
        "PGUSER": "postgres",
        "PGDATABASE": "postgres",
        "PGPASSWORD": container_database.password,
    }
    measured = container_database.gate(
        *("-ESc", STARTS),
        options=[*migrations, "--entrypoint", "/usr/local/bin/python3"],
        environ=environ,
    )
    assert measured.exit_code == 0, measured.stderr
    assert float(measured.stdout) <= STARTUP_RATIO_MAX


def test_a_start_with_nothing_pending_loads_what_is_listed_and_no_more(
    container_database: ContainerDatabase,
) -> None:
    """It cannot grow unseen."""
    assert container_database.gate(migrations=ROOT / "migrations").exit_code == 0
    login = f"postgres:{container_database.password}@{container_database.host}"
    run = container_database.gate(
        *("-ES", "-X", "lazy_imports=all", "-c", LOADED),
        options=["--entrypoint", "/usr/local/bin/python3"],
        migrations=ROOT / "migrations",
        environ={"DATABASE_URL": f"postgresql://{login}/postgres"},
    )
    assert run.exit_code == 0, run.stdout
    loaded = json.loads(run.stdout.splitlines()[-1])
    ours = [name for name in loaded if name.startswith("migration_gate.")]
    names = {name.partition(".")[2] for name in ours}
    assert (names - {*OURS.split()}, {*OURS.split()} - names) == (set(), set())
    assert TOO_DEAR.intersection(loaded) == set()


def test_the_verdict_is_in_the_termination_log(
    container_database: ContainerDatabase, folder: Path
) -> None:
    """Mounted as the kubelet does it: a file that anyone may write, in a folder not."""
    (folder / "001_broken.sql").write_text("SELECT nothing FROM nowhere;\n")
    termination_log = folder / "termination-log"
    termination_log.touch()
    termination_log.chmod(0o666)
    closed = container_database.gate(
        options=["--volume", f"{termination_log}:/dev/termination-log"],
        migrations=folder,
    )
    assert closed.exit_code == 1
    assert json.loads(termination_log.read_text()) == closed.verdict


def test_sigterm_ends_it_at_once(
    container_database: ContainerDatabase, folder: Path
) -> None:
    """As process 1, while a statement runs: rolled back, exit 1."""
    (folder / "001_slow.sql").write_text("SELECT pg_sleep(60);\n")
    settings = [f"--env={k}={v}" for k, v in container_database.environ().items()]
    container = docker(
        *("run", "--detach", "--network", container_database.network, *HARDENED),
        *(*settings, "--volume", f"{folder}:/migrations:ro", IMAGE),
    ).stdout.strip()
    try:
        running = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        deadline_s = time.monotonic() + 20
        while int(container_database.execute(running)) < 1:
            assert time.monotonic() < deadline_s, docker("logs", container).stdout
        started_s = time.monotonic()
        docker("stop", "--time", "20", container)
        assert time.monotonic() - started_s < 5
        assert inspect(container)["State"]["ExitCode"] == 1
        verdict = json.loads(docker("logs", container).stdout.splitlines()[-1])
        assert verdict["reason"] == "interrupted"
    finally:
        docker("rm", "--force", container)


class TlsDatabase:
    """A server that speaks TLS only, and the certificate of who signed its own."""

    def __init__(self, database: ContainerDatabase, folder: Path) -> None:
        self.database = database
        self.ca = folder / "ca.pem"
        self.other_ca = folder / "other.pem"

    def gate(self, *, ca: Path, mounted_at: str, **settings: str) -> tuple[int, str]:
        """Wait for it with a root; return the exit code and what was wrong."""
        ended = self.database.gate(
            "wait",
            options=["--volume", f"{ca}:{mounted_at}:ro"],
            environ=self.database.environ()
            | {"POSTGRES_SSL_MODE": "verify-full", "GATE_WAIT_TIMEOUT": "5s"}
            | settings,
        )
        return ended.exit_code, ended.verdict.get("error_message", "")


@pytest.fixture(scope="module")
def tls(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsDatabase]:
    """Start one for all tests of this module."""
    assert image
    folder = tmp_path_factory.mktemp("tls")
    folder.chmod(0o755)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    trustme.CA().cert_pem.write_to_path(str(folder / "other.pem"))
    certificate = authority.issue_cert("db")
    certificate.private_key_pem.write_to_path(str(folder / "server.key"))
    certificate.cert_chain_pems[0].write_to_path(str(folder / "server.crt"))
    # The server wants a key of its own user's that no other can read.
    (folder / "start.sh").write_text(
        "install -o postgres -m 600 /tls/server.key /tmp/server.key\n"
        "exec docker-entrypoint.sh postgres -c ssl=on -c ssl_key_file=/tmp/server.key"
        " -c ssl_cert_file=/tls/server.crt -c hba_file=/tls/hba.conf\n"
    )
    (folder / "hba.conf").write_text(
        "local all all trust\nhost all all 127.0.0.1/32 trust\n"
        "hostssl all all all scram-sha-256\n"
    )
    for file in folder.iterdir():
        file.chmod(0o644)
    database = start_database(
        f"migration-gate-tls-{secrets.token_hex(4)}",
        *("--volume", f"{folder}:/tls:ro", "--entrypoint", "bash"),
        command=("/tls/start.sh",),
    )
    try:
        await_database(database)
        yield TlsDatabase(database, folder)
    finally:
        remove_database(database)


def test_verify_full_works_with_a_mounted_root(tls: TlsDatabase) -> None:
    """Named in PGSSLROOTCERT."""
    mounted = tls.gate(ca=tls.ca, mounted_at="/tls/ca.pem", PGSSLROOTCERT="/tls/ca.pem")
    assert mounted == (0, "")


def test_verify_full_works_with_the_roots_of_the_system(tls: TlsDatabase) -> None:
    """The image's own bundle is where OpenSSL looks; ours stands in for it here."""
    bundle = "/etc/ssl/certs/ca-certificates.crt"
    system = tls.gate(ca=tls.ca, mounted_at=bundle, PGSSLROOTCERT="system")
    assert system == (0, "")


def test_verify_full_refuses_a_server_of_another_authority(tls: TlsDatabase) -> None:
    """Neither a wrong root nor the public ones will do."""
    for ca, at in (
        (tls.other_ca, "/etc/ssl/certs/ca-certificates.crt"),
        (tls.ca, "/tls/ca.pem"),  # unused: the image's public roots do not know it
    ):
        exit_code, message = tls.gate(ca=ca, mounted_at=at, PGSSLROOTCERT="system")
        assert exit_code == 1
        assert "certificate verify failed" in message


def test_the_public_roots_are_inside(image: str, tmp_path: Path) -> None:
    """For managed servers with public certificates."""
    container = docker("create", image).stdout.strip()
    try:
        docker(
            *("cp", f"{container}:/etc/ssl/certs/ca-certificates.crt"),
            str(tmp_path / "roots.pem"),
        )
    finally:
        docker("rm", container)
    roots = (tmp_path / "roots.pem").read_text()
    assert roots.count("BEGIN CERTIFICATE") > 100
