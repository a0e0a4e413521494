"""
Stands in for the ssl module, which would bring a second OpenSSL into the image.

psycopg's wheel imports ssl so that Python's OpenSSL is set up before its own; with one
OpenSSL there is nothing to set up, and OpenSSL 3 does it by itself. The rest are the
names that asyncio wants when it is imported.
"""

# ruff: noqa: INP001 -- takes the place of a top-level module


class SSLError(OSError):
    """As in ssl."""


class SSLSyscallError(SSLError):
    """As in ssl."""


class SSLWantReadError(SSLError):
    """As in ssl."""
