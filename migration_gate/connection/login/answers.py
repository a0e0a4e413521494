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
THROTTLED: Final = frozenset({429, 503})
THROTTLED_PAUSE_S: Final = 1.0
SERVER_FAULT: Final = 500
OK: Final = 200
CODE_LENGTH_MAX: Final = 64
# An endpoint that throttles says when to ask again; longer than this is not waited for.
RETRY_AFTER_MAX_S: Final = 30.0
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
    what to do about either. ``again_in_s`` is the least pause before the next question.
    """

    def __init__(
        self, text: str, remedy: str, *, is_refused: bool, again_in_s: float = 0.0
    ) -> None:
        super().__init__(text)
        self.remedy = remedy
        self.is_refused = is_refused
        self.again_in_s = again_in_s


class Asked(NamedTuple):
    """Who is asked for a token, and what helps where it is away, or refuses."""

    who: str
    when_away: str
    when_refused: str


class Answer(NamedTuple):
    """
    The last answer of a provider: its HTTP status, and its own code for it.

    ``retry_after_s`` is when to ask again, where it throttles.
    """

    status: int
    code: str = ""
    retry_after_s: float = 0.0

    @property
    def is_refusal(self) -> bool:
        """Tell whether the same question will be answered like this again."""
        return OK != self.status < SERVER_FAULT and self.status not in NOT_YET

    def __str__(self) -> str:
        if self.status == OK:
            return "an answer without a token"
        return f"HTTP {self.status}" + f", {self.code}" * bool(self.code)


def read_answer(
    status: int, body: bytes | str | None, retry_after: str | None = None
) -> Answer:
    """Return what an answer means, whatever its body and its header Retry-After are."""
    text = body.decode(errors="replace") if isinstance(body, bytes) else body or ""
    code = "" if status == OK else find_code(text)
    return Answer(status, code, read_retry_after(status, retry_after))


def read_retry_after(status: int, header: str | None) -> float:
    """Return in how many seconds to ask again; 0 where it does not throttle."""
    if status not in THROTTLED:
        return 0.0
    told = header is not None and re.fullmatch(r"\d{1,9}", header.strip())
    asked_s = float(header or 0) if told else 0.0
    return min(max(asked_s, THROTTLED_PAUSE_S), RETRY_AFTER_MAX_S)


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


def no_token(asked: Asked, answer: Answer | None, error: BaseException) -> NoTokenError:
    """
    Return what keeps a token away: an answer, or that none came.

    Args:
        asked: Who was.
        answer: The last one; None where nothing answered.
        error: What the SDK raised; of it only the type is told.
    """
    if isinstance(error, OSError) and isinstance(error.filename, str):
        why = (error.strerror or "cannot be read").lower()
        text = f'{asked.who}: file "{error.filename}" of the identity: {why}'
        return NoTokenError(text, asked.when_refused, is_refused=True)
    if answer is None:
        return not_answered(asked, type(error).__name__)
    told = f"{asked.who} gives no token: {answer}"
    remedy = asked.when_refused if answer.is_refusal else asked.when_away
    return NoTokenError(
        told, remedy, is_refused=answer.is_refusal, again_in_s=answer.retry_after_s
    )


def not_answered(asked: Asked, why: str) -> NoTokenError:
    """Return that nothing came, which may change."""
    text = f"{asked.who} does not answer ({why})"
    return NoTokenError(text, asked.when_away, is_refused=False)


def to_token(text: str, expires_in_s: float) -> Token:
    """Return a token that is good for some seconds from now."""
    return Token(text, time.monotonic() + expires_in_s)
