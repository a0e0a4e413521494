"""
Why a gate stays closed. Pure.

GateError                         closes the gate; has .reason, .hint and .fields()
├── SettingsError                 one or more settings are missing or malformed
├── MigrationFilesError           the folder, or a file in it, cannot be used
├── DatabaseUnreachableError      not usable before the deadline; __cause__ is psycopg's
├── LoginRefusedError             a refusal that outlived the grace, or a missing right
├── ServerRefusedError            PostgreSQL refused a statement of the gate's own
│   └── HistoryRefusedError       the same, of a row of the history
├── LockTimeoutError              another gate kept the lock without progress
├── HistoryError                  history disagrees with the files, or cannot be trusted
├── MigrationBlockedError         its locks were never free
├── MigrationFailedError          PostgreSQL refused a statement; has its place
├── UnresolvedError               an unfinished statement that only a person can judge
├── IncompleteError               check, status: not everything is applied
└── PlacedError                   has a place in a file, if it is about one
    ├── RehearsalError            a rehearsal may not be, or found what is refused
    └── StoppedError              ended from outside; its place is what it was at
        ├── DeadlineError         GATE_TIMEOUT is over
        └── GateInterruptedError  a signal ended the run

Messages follow PostgreSQL's error message style guide: lower case, no full stop;
hints are sentences. No message, hint or field ever holds a secret or SQL text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Final, NamedTuple, Self


class GateError(Exception):
    """
    Close the gate.

    ``reason`` is one of the closed set of SPEC section 8, ``hint`` the remedy in one
    or two sentences, ``version`` the one migration that it is about, if it is.
    """

    reason: ClassVar[str] = "internal"

    def __init__(
        self, message: str, *, hint: str = "", version: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.version = version

    def fields(self) -> dict[str, object]:
        """Return what the verdict says beside reason, message and hint."""
        return {"version": self.version}

    def noted(self, note: str) -> Self:
        """Add to the message what is known of the circumstances; return the error."""
        self.message = f"{self.message} ({note})"
        self.args = (self.message,)
        return self


class SettingFault(NamedTuple):
    """
    One setting that cannot be used: its name, the rule it breaks, the remedy.

    ``may_come`` tells of a file that somebody may write yet.
    """

    name: str
    rule: str
    remedy: str = ""
    may_come: bool = False


class SettingsError(GateError):
    """One or more settings are missing or malformed; lists all of them."""

    reason = "settings"

    def __init__(self, faults: Sequence[SettingFault]) -> None:
        self.faults = tuple(faults)
        super().__init__(
            "; ".join(f"{fault.name} {fault.rule}" for fault in self.faults),
            hint=" ".join(dict.fromkeys(f.remedy for f in self.faults if f.remedy)),
        )

    @property
    def may_come(self) -> bool:
        """Return whether all that is wrong is a file that somebody may write yet."""
        return all(fault.may_come for fault in self.faults)


class FileFault(NamedTuple):
    """
    One fault of a file or of the folder.

    ``line`` and ``column`` count from 1, in characters; None where the fault is not
    in the text.
    """

    file: str
    problem: str
    remedy: str = ""
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.problem}"


FILES_SHOWN: Final = 5


def _describe(faults: Sequence[FileFault]) -> Iterator[str]:
    """Say each fault of a text, and once what several files have in common."""
    alike: dict[str, list[str]] = {}
    for fault in faults:
        if fault.line is None:
            alike.setdefault(fault.problem, []).append(fault.file)
    for fault in faults:
        files = alike.pop(fault.problem, []) if fault.line is None else [fault.file]
        if fault.line is not None or len(files) == 1:
            yield str(fault)
        elif files:
            more = len(files) - FILES_SHOWN
            shown = ", ".join(files[:FILES_SHOWN])
            yield f"{shown}{f' and {more} more' if more > 0 else ''}: {fault.problem}"


class MigrationFilesError(GateError):
    """The folder, or a file in it, cannot be used; lists every fault."""

    reason = "files"

    def __init__(self, faults: Sequence[FileFault]) -> None:
        self.faults = tuple(faults)
        super().__init__(
            "; ".join(_describe(self.faults)),
            hint=" ".join(dict.fromkeys(f.remedy for f in self.faults if f.remedy)),
        )

    def fields(self) -> dict[str, object]:
        """Return the place of the first fault."""
        first = self.faults[0]
        return {"file": first.file, "line": first.line, "column": first.column}


class DatabaseUnreachableError(GateError):
    """
    The database was not usable before the deadline; __cause__ is psycopg's.

    ``is_server_away`` tells that it would be so of any database of that server.
    """

    reason = "unreachable"
    is_server_away = False


class LoginRefusedError(GateError):
    """A refusal that outlived the grace, or a right that the login role lacks."""

    reason = "refused"


class ServerRefusedError(GateError):
    """
    PostgreSQL refused a statement of the gate's own.

    ``said`` is what may be told of its words, under the names of the log's fields.
    """

    reason = "refused"

    def __init__(
        self, doing: str, *, sqlstate: str, said: Mapping[str, str | None], hint: str
    ) -> None:
        words = f"{said['error_message']} (SQLSTATE {sqlstate})"
        super().__init__(f"could not {doing}: {words}", hint=hint)
        self.sqlstate = sqlstate
        self.said = said

    def fields(self) -> dict[str, object]:
        """Return PostgreSQL's cleaned words."""
        said = {name: text for name, text in self.said.items() if text is not None}
        return {**said, "error_message": self.message, "sqlstate": self.sqlstate}


class HistoryRefusedError(ServerRefusedError):
    """PostgreSQL refused to write a row of the history."""

    reason = "history"

    def __init__(self, refusal: ServerRefusedError, *, hint: str = "") -> None:
        GateError.__init__(self, refusal.message, hint=hint or refusal.hint)
        self.sqlstate = refusal.sqlstate
        self.said = refusal.said


class LockTimeoutError(GateError):
    """Another gate kept the lock without progress."""

    reason = "lock_timeout"


class HistoryError(GateError):
    """
    Folder and history disagree, or the history table cannot be trusted.

    ``line`` and ``column`` are those of the statement in ``file`` that has to do with
    it, where there is one.
    """

    reason = "history"

    def __init__(  # noqa: PLR0913  # a place, by name
        self,
        message: str,
        *,
        hint: str = "",
        version: str | None = None,
        file: str | None = None,
        line: int | None = None,
        column: int | None = None,
    ) -> None:
        super().__init__(message, hint=hint, version=version)
        self._place = {"version": version, "file": file, "line": line, "column": column}

    def fields(self) -> dict[str, object]:
        """Return the place in a file; None where it is about none."""
        return {**self._place}


class SqlFailure(NamedTuple):
    """
    An error as PostgreSQL gave it; may hold SQL text and row data: never logged as is.

    ``source`` is the function of the server's, or of an extension's, that raised it;
    ``position`` counts characters of the message from 1.
    """

    sqlstate: str | None
    message: str | None
    detail: str | None
    hint: str | None
    context: str | None
    constraint: str | None
    table: str | None
    position: int | None
    source: str | None = None
    severity: str | None = None

    def __repr__(self) -> str:
        return f"SqlFailure(sqlstate={self.sqlstate!r})"

    @property
    def ends_session(self) -> bool:
        """Return whether the server has ended the session with it."""
        return self.severity in {"FATAL", "PANIC"}


class SqlError(NamedTuple):
    """
    What PostgreSQL said, cleaned for the log, and where it points.

    ``line`` and ``column`` are those of the file, in characters; None for an error
    at COMMIT that more than one statement may have led to. The other fields are None
    where PostgreSQL gave none.
    """

    version: str
    file: str
    sqlstate: str | None
    error_message: str
    line: int | None = None
    column: int | None = None
    error_detail: str | None = None
    error_hint: str | None = None
    error_context: str | None = None


class MigrationFailedError(GateError):
    """PostgreSQL refused a statement; nothing of its file is left."""

    reason = "migration_failed"

    def __init__(self, error: SqlError, *, hint: str) -> None:
        place = ":".join(
            str(part) for part in (error.file, error.line, error.column) if part
        )
        code = f" (SQLSTATE {error.sqlstate})" if error.sqlstate else ""
        super().__init__(f"{place}: {error.error_message}{code}", hint=hint)
        self.error = error

    def fields(self) -> dict[str, object]:
        """Return the place in the file and PostgreSQL's cleaned words."""
        said = self.error._asdict()
        return {**said, "error_message": self.error.error_message}


class MigrationBlockedError(MigrationFailedError):
    """Its locks were never free within GATE_DDL_RETRY_TIMEOUT."""

    reason = "blocked"


class UnresolvedError(GateError):
    """An unfinished statement that only a person can judge."""

    reason = "unresolved"


def ask_to_resolve(version: str) -> str:
    """Return what a person answers about a statement that may have done a part."""
    return (
        f"All of it is done: the command resolve {version} --applied, and the file "
        "goes on after this statement. Nothing is, or it may run twice: resolve "
        f"{version} --not-applied, and it runs again. A part is: finish that by hand "
        "and say --applied, or undo it and say --not-applied. Start the gate again."
    )


class IncompleteError(GateError):
    """Not every migration shipped here is applied."""

    reason = "incomplete"


class PlacedError(GateError):
    """An error at a place in a file, or at none; ``file`` and ``line`` are it."""

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        file: str | None = None,
        line: int | None = None,
    ) -> None:
        super().__init__(message, hint=hint, version=file)
        self._place = {"file": file, "line": line}

    def fields(self) -> dict[str, object]:
        """Return the place."""
        return {**super().fields(), **self._place}


class RehearsalError(PlacedError):
    """A rehearsal may not be here, or has found what GATE_REHEARSE_REFUSE names."""

    reason = "rehearsal"


class StoppedError(PlacedError):
    """The run was ended from outside; the place is what it was at, if a file."""


class DeadlineError(StoppedError):
    """GATE_TIMEOUT is over."""

    reason = "deadline"


class GateInterruptedError(StoppedError):
    """A signal ended the run."""

    reason = "interrupted"
