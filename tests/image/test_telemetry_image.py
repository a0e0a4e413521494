"""
The images send what a run did: the plain one by http, one with TLS by https.

The collector is on the host's own network.
"""

from __future__ import annotations

import json

from pathlib import Path

import pytest
import trustme

from tests.collector import Collector
from tests.fix_image import BUILD_S, HARDENED, build, docker
from tests.project.pages import read_prose


pytestmark = [pytest.mark.docker, pytest.mark.timeout(BUILD_S)]
WITH_TLS = "migration-gate:otel"
PAGE = "docs/telemetry.md"


@pytest.fixture(scope="module")
def image_with_tls() -> str:
    """Return the name of the image that the page tells how to build."""
    build("--build-arg", "EXTRAS=otel", tag=WITH_TLS)
    return WITH_TLS


def run(image: str, folder: Path, **settings: str) -> list[str]:
    """Run a gate that has no database, and return why something was not sent."""
    given = [f"--env={name}={value}" for name, value in settings.items()]
    done = docker(
        *("run", "--rm", "--network", "host", *HARDENED),
        *("--volume", f"{folder}:{folder}:ro", *given, image),
        check=False,
    )
    assert done.returncode == 1
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert (lines[-1]["event"], lines[-1]["reason"]) == ("gate.closed", "settings")
    return [line["reason"] for line in lines if line["event"] == "telemetry.not_sent"]


def test_the_plain_image_sends_by_http(image: str, tmp_path: Path) -> None:
    """A trace, and metrics."""
    with Collector() as collector:
        endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
        assert run(image, tmp_path, **endpoint) == []
        assert [span.name for span in collector.spans()] == ["migration-gate"]
        assert "migration_gate.runs" in collector.metrics()


def test_the_plain_image_says_which_image_speaks_tls(
    image: str, tmp_path: Path
) -> None:
    """It has none, and closes nothing for it."""
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://127.0.0.1:1"}
    (reason,) = run(image, tmp_path, **endpoint)
    assert "EXTRAS=otel" in reason


def test_an_image_with_tls_sends_by_https(image_with_tls: str, tmp_path: Path) -> None:
    """And knows who it talks to."""
    tmp_path.chmod(0o755)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    (tmp_path / "ca.pem").chmod(0o644)
    with Collector(ca=authority) as collector:
        endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
        (reason,) = run(image_with_tls, tmp_path, **endpoint)
        assert "certificate" in reason
        named = {"OTEL_EXPORTER_OTLP_CERTIFICATE": str(tmp_path / "ca.pem")}
        assert run(image_with_tls, tmp_path, **endpoint, **named) == []
        assert [span.name for span in collector.spans()] == ["migration-gate"]


def test_tls_adds_what_the_page_says(image: str, image_with_tls: str) -> None:
    """A second OpenSSL."""
    plain, larger = (
        json.loads(docker("inspect", name).stdout)[0]["Size"]
        for name in (image, image_with_tls)
    )
    assert f"adds {(larger - plain) / 1e6:.0f} MB" in read_prose(PAGE)
