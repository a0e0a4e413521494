"""
The settings that name the database: each its value, or the file that holds it. Pure.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from migration_gate.settings.connection_string import MalformedError


if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


Way = Literal["DATABASE_URL", "POSTGRES_HOST", "PG"]
# How the gate proves who it is: the words of GATE_LOGIN.
Login = Literal["password", "azure", "aws", "google"]
POSTGRES_VARIABLES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "host": "POSTGRES_HOST",
        "port": "POSTGRES_PORT",
        "user": "POSTGRES_USER",
        "password": "POSTGRES_PASSWORD",
        "dbname": "POSTGRES_DB",
        "sslmode": "POSTGRES_SSL_MODE",
    }
)
_READABLE: Final = (
    "The gate does not run as root: make the file readable for its user"
    " (Compose does not apply uid, gid and mode to file secrets: mode 0444 on the host;"
    " Kubernetes: defaultMode or fsGroup)."
)
_MOUNT: Final = "Check the path that it has, and what is mounted there."


class PipeError(OSError):
    """A pipe in place of a file that is read more than once."""


class Source(NamedTuple):
    """
    One setting: its value, or the path of the file that holds it.

    Both are set when the environment gives both, which is a fault once it is used.
    The path is not shown either: a secret is sometimes put there by mistake.
    """

    name: str
    value: str | None = None
    file: str | None = None

    def __repr__(self) -> str:
        return f"Source(name={self.name!r})"

    @property
    def setting(self) -> str:
        """The variable that a fault names."""
        return f"{self.name}_FILE" if self.value is None else self.name


class DatabaseSettings(NamedTuple):
    """
    The way in use, its settings, and the libpq variables that may fill in.

    The first of ``sources`` is the one that names the database.
    ``instead`` are the parameters of one target of a fleet, which come before all of
    these; an empty one takes away what they say.
    """

    way: Way
    sources: tuple[Source, ...]
    login: Login = "password"
    instead: tuple[tuple[str, str], ...] = ()


def source_text(source: Source, read_file: Callable[[str], str] | None) -> str:
    """
    Return the value of a setting, or what its file holds.

    Raises:
        MalformedError: Both are given, or the value is no text.
    """
    if source.value is not None and source.file is not None:
        raise MalformedError(
            f"is set together with {source.name}_FILE", "Keep one of the two."
        )
    if source.file is not None and read_file is not None:
        text = _file_text(source.file, read_file)
    else:
        text = source.value or ""
    if "\0" in text:
        raise MalformedError("contains a NUL character", "Remove it.")
    # A surrogate is what Python makes of a byte that is not UTF-8.
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise MalformedError("is not UTF-8 text", "Write it in UTF-8.")
    return text


def _file_text(file: str, read_file: Callable[[str], str]) -> str:
    """Return the content without one newline at its end."""
    try:
        text = read_file(file)
    except (OSError, ValueError) as error:
        raise _unreadable(error) from None
    if text.endswith("\n"):
        text = text[:-1].removesuffix("\r")
    if not text:
        raise MalformedError(
            "names a file that is empty", "Put the value in the file.", may_come=True
        )
    return text


def _unreadable(error: OSError | ValueError) -> MalformedError:
    if isinstance(error, FileNotFoundError):
        return MalformedError("names a file that does not exist", _MOUNT, may_come=True)
    if isinstance(error, IsADirectoryError):
        return MalformedError(
            "names a folder",
            "Docker makes a folder where the file to mount does not exist.",
        )
    if isinstance(error, PermissionError):
        return MalformedError(
            "names a file that cannot be read: permission denied", _READABLE
        )
    if isinstance(error, PipeError):
        return MalformedError(
            "names a pipe", "Name a file: it is read again at each attempt to connect."
        )
    if isinstance(error, OSError):
        return MalformedError("names a file that cannot be read", _MOUNT)
    return MalformedError("names a file that is not UTF-8 text", "Write it in UTF-8.")
