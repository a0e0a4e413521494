"""
A server that speaks another language is understood by its SQLSTATE, or waited for.

German, French and Japanese are as PostgreSQL 15 says them (its wheel here has English
only); the server is a small one that can refuse, and nothing else.
"""

from __future__ import annotations

import socket
import struct
import threading

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from migration_gate.connection.texts import find_cause
from tests.ends import close
from tests.fix_gate import Gate


SECRET = "Xq7-Zv9.kR2"
TEXTS = {
    "28P01": (
        "Passwort-Authentifizierung für Benutzer »u« fehlgeschlagen",
        "authentification par mot de passe échouée pour l'utilisateur « u »",
        'ユーザー"u"のパスワード認証に失敗しました',
    ),
    "3D000": (
        "Datenbank »d« existiert nicht",
        "la base de données « d » n'existe pas",
        'データベース"d"は存在しません',
    ),
    "28000": (
        "Rolle »u« existiert nicht",
        'ロール"u"は存在しません',
        "pg_hba.conf lehnt Verbindung ab für Host »::1«, Benutzer »u«, Datenbank »d«",
    ),
    "42501": (
        "keine Berechtigung für Datenbank »d«",
        'データベース"d"へのアクセスが拒否されました',
    ),
    "55000": (
        "Datenbank »d« akzeptiert gegenwärtig keine Verbindungen",
        '現在データベース"d"は接続を受け付けません',
    ),
    "53300": (
        "tut mir leid, schon zu viele Verbindungen",
        "zu viele Verbindungen von Rolle »u«",
        "現在クライアント数が多すぎます",
    ),
    "42704": (
        "unbekannter Konfigurationsparameter »x«",
        '設定パラメータ"x"は不明です',
    ),
    "57P03": (
        "das Datenbanksystem startet",
        "le système de bases de données se lance",
        "データベースシステムは起動処理中です",
    ),
    "XX123": ("etwas ganz anderes", "tout autre chose", "まったく別のこと"),
}
REASONS = {
    "28P01": "login_refused",
    "3D000": "no_database",
    "28000": "login_not_allowed",
    "42501": "no_connect_right",
    "55000": "database_closed",
    "53300": "too_many_connections",
    "42704": "startup_parameter",
    "57P03": "starting_up",
    "XX123": "server_refusal",
}
CASES = [(code, text) for code, texts in TEXTS.items() for text in texts]


@contextmanager
def refusing(code: str, text: str, asked: list[bytes] | None = None) -> Iterator[str]:
    """Refuse every login with one error, after having declined TLS; note each."""
    seen = [] if asked is None else asked
    fields = (b"SFATAL", b"VFATAL", b"C" + code.encode(), b"M" + text.encode())
    body = b"".join(field + b"\0" for field in fields) + b"\0"
    refusal = b"E" + struct.pack("!i", len(body) + 4) + body

    def serve(client: socket.socket) -> None:
        with client:
            client.recv(8)
            client.sendall(b"N")
            seen.append(client.recv(1024))
            client.sendall(refusal)

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                    serve(client)
                except OSError:
                    if listener.fileno() < 0 or is_over.is_set():
                        return

        is_over = threading.Event()
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        is_over.set()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize(("code", "text"), CASES, ids=lambda part: part[:12])
def test_a_refusal_in_any_language_ends_as_its_sqlstate_says(
    gate: Gate, code: str, text: str
) -> None:
    """A refusal closes after the grace; a start, and the unknown, are waited for."""
    assert find_cause(text).reason == "unknown"
    with refusing(code, text) as place:
        env = {"DATABASE_URL": f"postgresql://u:{SECRET}@{place}/d"}
        run = close(gate, REASONS[code], env=env)
    assert text in run.verdict["error_message"]
    assert SECRET not in run.output
