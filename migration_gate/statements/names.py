"""
Names and string constants as PostgreSQL reads them: unquoted, folded, cut. Pure.
"""

from __future__ import annotations

import re

from functools import cache
from typing import Final


# NAMEDATALEN - 1
NAME_BYTES: Final = 63

_WORD: Final = re.compile(rb"[A-Za-z_\x80-\xff][A-Za-z_0-9$\x80-\xff]*+")
_STRING_INSIDE: Final = re.compile(
    rb"'(?:(?:[ \t\f\v]|--[^\n\r]*)*[\n\r](?:[ \t\n\r\f\v]|--[^\n\r]*[\n\r])*)?'"
)
_BACKSLASH: Final = re.compile(
    rb"\\(?:([0-7]{1,3})|x([0-9A-Fa-f]{1,2})"
    rb"|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.))",
    re.DOTALL,
)
_CONTROL: Final = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t"}


@cache
def _to_tokens(words: str) -> tuple[bytes, ...]:
    return tuple(words.encode().split())


class TokenReader:
    """Reads a statement's tokens in order; each method takes what it names."""

    def __init__(self, tokens: tuple[bytes, ...]) -> None:
        self._tokens = tokens
        self._position = 0

    def peek(self, ahead: int = 0) -> bytes:
        """Return a token without taking it; b"" after the last."""
        position = self._position + ahead
        return self._tokens[position] if position < len(self._tokens) else b""

    def take(self) -> bytes:
        """Take one token; b"" after the last."""
        token = self.peek()
        self._position += 1
        return token

    def take_words(self, words: str) -> bool:
        """Take these words when they come next, all or none."""
        wanted = _to_tokens(words)
        start, tokens = self._position, self._tokens
        if start >= len(tokens) or tokens[start] != wanted[0]:
            return False
        end = start + len(wanted)
        if tokens[start:end] != wanted:
            return False
        self._position = end
        return True

    def take_any(self, *words: str) -> bool:
        """Take the first of these that comes next."""
        if self._position >= len(self._tokens):
            return False
        return any(self.take_words(choice) for choice in words)

    def take_name(self) -> str | None:
        """Take one identifier."""
        token = self.peek()
        if not is_name(token):
            return None
        self._position += 1
        escape = b"\\"
        if token[:2].lower() == b"u&" and self.take_words("uescape"):
            escape = string_value(self.take()).encode()
        return name_value(token, escape)

    def take_table(self) -> tuple[str | None, str] | None:
        """Take a name that may be qualified; return its schema and the name."""
        parts = []
        while (name := self.take_name()) is not None:
            parts.append(name)
            if not self.take_words("."):
                return (parts[-2] if len(parts) > 1 else None), name
        return None

    def take_parentheses(self) -> tuple[bytes, ...]:
        """Take what is in parentheses, without them; empty when none come next."""
        if self.peek() != b"(":
            return ()
        start, depth = self._position + 1, 0
        while token := self.take():
            depth += (token == b"(") - (token == b")")
            if depth == 0:
                return self._tokens[start : self._position - 1]
        return self._tokens[start:]

    def rest(self) -> tuple[bytes, ...]:
        """Return the tokens that were not taken."""
        return self._tokens[self._position :]


def is_name(token: bytes) -> bool:
    """Tell an identifier, quoted or not, from everything else."""
    return token[-1:] == b'"' or _WORD.fullmatch(token) is not None


def is_string(token: bytes) -> bool:
    """Tell a string constant, of whatever form, from everything else."""
    return token[-1:] == b"'" or (token[:1] == b"$" and token[-1:] == b"$" != token)


def name_value(token: bytes, escape: bytes = b"\\") -> str:
    """Return an identifier as the catalogue has it."""
    if token[-1:] != b'"':
        name = token.lower()
    else:
        unicode = token[:1] != b'"'
        name = token[3 if unicode else 1 : -1].replace(b'""', b'"')
        name = _unescape_unicode(name, escape) if unicode else name
    return name[:NAME_BYTES].decode(errors="ignore")


def string_value(token: bytes) -> str:
    """Return what a string constant stands for."""
    if token[:1] == b"$":
        tag_end = token.index(b"$", 1) + 1
        return token[tag_end:-tag_end].decode(errors="replace")
    prefix, _, body = token.partition(b"'")
    text = _STRING_INSIDE.sub(
        lambda edge: b"'" if edge[0] == b"''" else b"",
        # A backslash would hide the quote after it from the pattern.
        body[:-1] if prefix.lower() != b"e" else _unescape_backslashes(body[:-1]),
    )
    if prefix.lower() == b"u&":
        text = _unescape_unicode(text, b"\\")
    return text.decode(errors="replace")


def _unescape_backslashes(text: bytes) -> bytes:
    def character(escaped: re.Match[bytes]) -> bytes:
        octal, hexadecimal, short, long, other = escaped.groups()
        if octal:
            return bytes([int(octal, 8) & 0xFF])
        if hexadecimal:
            return bytes([int(hexadecimal, 16)])
        if short or long:
            return _character(short or long)
        return _CONTROL.get(other, b"''" if other == b"'" else other)

    return _BACKSLASH.sub(character, text)


def _unescape_unicode(text: bytes, escape: bytes) -> bytes:
    mark = re.escape(escape)
    pattern = mark + rb"(?:\+([0-9A-Fa-f]{6})|([0-9A-Fa-f]{4})|(" + mark + rb"))"
    return re.sub(pattern, lambda code: code[3] or _character(code[1] or code[2]), text)


def _character(code: bytes) -> bytes:
    return chr(min(int(code, 16), 0x10FFFF)).encode(errors="surrogatepass")
