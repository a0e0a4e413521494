"""
What a provider of identities answers, and whether waiting helps.

Of an answer nothing but its status and its code is kept: its text may hold a token.
"""

from __future__ import annotations

import json
import re
import time

from typing import Final, NamedTuple


# Throttled, or at fault itself: another try may be answered otherwise.
NOT_YET: Final = frozenset({404, 408, 410, 425, 429})
SERVER_FAULT: Final = 500
OK: Final = 200
CODE_LENGTH_MAX: Final = 64
# A word alone, as providers name their refusals; Entra's number says more than that.
CODE: Final = re.compile(rf"[A-Za-z][A-Za-z0-9_.-]{{1,{CODE_LENGTH_MAX - 1}}}")
ENTRA_CODE: Final = re.compile(r"AADSTS\d{4,8}")
EXCEPTION: Final = re.compile(r"\b[A-Z][A-Za-z]{2,40}Exception\b")


class Token(NamedTuple):
    """What logs in, and until when on the monotonic clock; never shown."""

    text: str
    expires_s: float

    def __repr__(self) -> str:
        return "Token()"


class NoTokenError(Exception):
    """
    No token was given.

    ``is_refused`` tells a refusal from an answer that may yet come; ``remedy`` says
    what to do about either.
    """

    def __init__(self, text: str, remedy: str, *, is_refused: bool) -> None:
        super().__init__(text)
        self.remedy = remedy
        self.is_refused = is_refused


class Answer(NamedTuple):
    """The last answer of a provider: its HTTP status, and its own code for it."""

    status: int
    code: str = ""

    @property
    def is_refusal(self) -> bool:
        """Tell whether the same question will be answered like this again."""
        return OK != self.status < SERVER_FAULT and self.status not in NOT_YET

    def __str__(self) -> str:
        if self.status == OK:
            return "an answer without a token"
        return f"HTTP {self.status}" + f", {self.code}" * bool(self.code)


def read_answer(status: int, body: bytes | str | None) -> Answer:
    """Return what an answer means, whatever its body is."""
    text = body.decode(errors="replace") if isinstance(body, bytes) else body or ""
    return Answer(status, "" if status == OK else find_code(text))


def find_code(text: str) -> str:
    """Return the provider's code of a refusal; empty where there is none."""
    for pattern in (ENTRA_CODE, EXCEPTION):
        found = pattern.search(text)
        if found:
            return found[0]
    try:
        told = json.loads(text)
    except ValueError:
        return ""
    error = told.get("error", told) if isinstance(told, dict) else None
    if isinstance(error, dict):
        error = error.get("status") or error.get("code") or error.get("Code")
    return error if isinstance(error, str) and CODE.fullmatch(error) else ""


def no_token(
    who: str, answer: Answer | None, error: BaseException, remedies: tuple[str, str]
) -> NoTokenError:
    """
    Return what keeps a token away: an answer, or that none came.

    Args:
        who: Whose endpoint it is, as in "the managed identity endpoint".
        answer: The last one; None where nothing answered.
        error: What the SDK raised; of it only the type is told.
        remedies: For an answer that may come yet, and for a refusal.
    """
    if isinstance(error, OSError) and isinstance(error.filename, str):
        why = (error.strerror or "cannot be read").lower()
        text = f'{who}: file "{error.filename}" of the identity: {why}'
        return NoTokenError(text, remedies[1], is_refused=True)
    if answer is None:
        text = f"{who} does not answer ({type(error).__name__})"
        return NoTokenError(text, remedies[0], is_refused=False)
    told = f"{who} gives no token: {answer}"
    remedy = remedies[1] if answer.is_refusal else remedies[0]
    return NoTokenError(told, remedy, is_refused=answer.is_refusal)


def to_token(text: str, expires_in_s: float) -> Token:
    """Return a token that is good for some seconds from now."""
    return Token(text, time.monotonic() + expires_in_s)
