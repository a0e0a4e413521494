"""
What an extra of the image adds, beside what its imports lead to: see EXTRAS there.

An SDK imports some of its parts by name, machine code imports Python's, and some read
files; each such part stands here. A test asks every extra's image for a token.
"""

# ruff: noqa: INP001 -- a part of a program, not of a package

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Extra:
    """
    What one SDK needs.

    ``modules`` are found by name at run time, ``whole`` are patterns of files that all
    are, ``data`` of files that are read; ``namespaces`` are folders of packages that
    modulefinder takes for none.
    """

    modules: tuple[str, ...]
    whole: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()


# Of the standard library, for whoever speaks HTTP over TLS; the gate itself does not.
FOR_HTTP: Final = frozenset(
    {
        *("_hashlib", "_ssl"),
        *("_bz2", "_lzma", "bz2", "gzip", "lzma"),
        *("email", "html", "http", "mimetypes", "socketserver", "urllib"),
        *("csv", "importlib.metadata", "webbrowser", "zipfile"),
        *("multiprocessing", "plistlib", "xml", "_strptime"),
    }
)
# requests and what it finds by name; charset_normalizer is partly machine code.
REQUESTS: Final = (
    *("charset_normalizer/*.so", "*__mypyc*.so", "charset_normalizer/*.py"),
    *("urllib3/*.py", "urllib3/util/*.py", "idna/*.py", "requests/*.py"),
    # Imported by its machine code.
    *("cryptography/**/*.py", "cryptography/**/*.so", "_cffi_backend*.so"),
)
EXTRAS: Final[Mapping[str, Extra]] = {
    "azure": Extra(
        modules=("azure.identity", "azure.core.pipeline.transport._requests_basic"),
        whole=REQUESTS,
        data=("certifi/cacert.pem",),
        namespaces=("azure",),
    ),
    "aws": Extra(
        modules=(
            *("botocore.session", "botocore.signers", "botocore.credentials"),
            *("botocore.config", "botocore.utils", "botocore.parsers", "queue"),
            "_strptime",  # imported by datetime's machine code
        ),
        whole=("urllib3/*.py", "urllib3/util/*.py", "dateutil/**/*.py"),
        data=(
            "botocore/cacert.pem",
            "botocore/data/*.json",
            "botocore/data/sts/*/*",
        ),
    ),
    "google": Extra(
        modules=(
            *("google.auth", "google.auth.transport.requests"),
            *("google.auth.compute_engine", "google.auth.identity_pool"),
            *("google.auth.aws", "google.oauth2.credentials"),
            "google.oauth2.service_account",
            "_strptime",  # imported by datetime's machine code
        ),
        whole=REQUESTS,
        data=("certifi/cacert.pem",),
        namespaces=("google",),
    ),
    # Python's own TLS, for a collector that is spoken to by https; no library.
    "otel": Extra(modules=()),
}
