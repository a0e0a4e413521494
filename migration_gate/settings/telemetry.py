"""
What OpenTelemetry's variables ask for. Pure.

Names, defaults and forms are OpenTelemetry's own. Whatever is wrong with them closes
no gate: it is said in ``fault``, by name and rule, never by value, and nothing is sent.
Loaded only where an endpoint is set.
"""

from __future__ import annotations

import re

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from migration_gate.report.metrics import Temporality
from migration_gate.report.otlp import Receiver, Signal


ENDPOINT: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
SIGNALS: Final[tuple[Signal, ...]] = ("traces", "metrics")
SERVICE_NAME: Final = "migration-gate"
LONGEST_TIMEOUT_S: Final = 1.0
PORTS: Final = {"http": 80, "https": 443}
PORT_MAX: Final = 65535
# A variable of Kubernetes' downward API, and the convention's name for it.
POD_ATTRIBUTES: Final = (
    ("POD_NAME", "k8s.pod.name"),
    ("POD_NAMESPACE", "k8s.namespace.name"),
    ("NODE_NAME", "k8s.node.name"),
)

_LABEL: Final = r"[^\s/:@?#\[\].]{1,63}"
_URL: Final = re.compile(
    rf"(?P<scheme>https?)://(?P<host>\[[0-9A-Fa-f:.]+\]|{_LABEL}(?:\.{_LABEL})*\.?)"
    r"(?::(?P<port>\d{1,5}))?(?P<path>/[^\s?#]*)?"
)
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_ESCAPED: Final = re.compile(rb"%([0-9A-Fa-f]{2})")


class TelemetrySettings(NamedTuple):
    """What is sent, where, and about whom; ``fault`` says why something is not."""

    receivers: Mapping[Signal, Receiver]
    resource: Mapping[str, str]
    temporality: Temporality
    fault: str = ""


def telemetry_settings(environ: Mapping[str, str]) -> TelemetrySettings | None:
    """Read OpenTelemetry's variables; None where nothing is to be sent."""
    if _is_true(environ.get("OTEL_SDK_DISABLED", "")):
        return None
    receivers: dict[Signal, Receiver] = {}
    faults: list[str] = []
    for signal in SIGNALS:
        if environ.get(f"OTEL_{signal.upper()}_EXPORTER", "otlp").strip() != "otlp":
            continue
        try:
            receiver = _read_receiver(environ, signal)
        except ValueError as broken:
            faults.append(str(broken))
            continue
        if receiver is not None:
            receivers[signal] = receiver
    if not receivers and not faults:
        return None
    name = _name_of(environ, "METRICS_TEMPORALITY_PREFERENCE")
    wanted = environ.get(name, "").strip().lower()
    return TelemetrySettings(
        receivers=receivers,
        resource=_read_resource(environ),
        temporality="cumulative" if wanted == "cumulative" else "delta",
        fault="; ".join(dict.fromkeys(faults)),
    )


def _is_true(text: str) -> bool:
    return text.strip().lower() == "true"


def _name_of(environ: Mapping[str, str], end: str, signal: Signal | None = None) -> str:
    """Return the name of the variable that decides: a signal's own, or the common."""
    own = f"OTEL_EXPORTER_OTLP_{signal.upper()}_{end}" if signal else ""
    return own if environ.get(own) else f"OTEL_EXPORTER_OTLP_{end}"


def _read_receiver(environ: Mapping[str, str], signal: Signal) -> Receiver | None:
    """Return where a signal goes. Raises ValueError with what is wrong."""

    def value_of(end: str) -> str:
        return environ.get(_name_of(environ, end, signal), "").strip()

    endpoint, name = value_of("ENDPOINT"), _name_of(environ, "ENDPOINT", signal)
    if not endpoint:
        return None
    if value_of("PROTOCOL").lower() == "grpc":
        raise ValueError(
            f"{_name_of(environ, 'PROTOCOL', signal)} asks for grpc, which the gate "
            "does not speak: set it to http/json, and the endpoint to the port of "
            "OTLP over HTTP, which is 4318 as a rule"
        )
    match = _URL.fullmatch(endpoint)
    if (
        match is None
        or int(match["port"] or 1) not in range(1, PORT_MAX + 1)
        or not endpoint.isprintable()
    ):
        raise ValueError(f"{name} is not of the form http://HOST:PORT")
    path = match["path"] or ""
    if name == ENDPOINT:
        path = f"{path.rstrip('/')}/v1/{signal}"
    return Receiver(
        scheme=match["scheme"],
        host=match["host"].strip("[]"),
        port=int(match["port"] or PORTS[match["scheme"]]),
        path=path or "/",
        timeout_s=_read_timeout(value_of("TIMEOUT")),
        headers=tuple(_read_headers(environ, signal)),
        authority=value_of("CERTIFICATE"),
        certificate=value_of("CLIENT_CERTIFICATE"),
        key=value_of("CLIENT_KEY"),
    )


def _read_headers(
    environ: Mapping[str, str], signal: Signal
) -> Iterator[tuple[str, str]]:
    name = _name_of(environ, "HEADERS", signal)
    for header, value in _read_pairs(environ.get(name, "")):
        # A line end in it would be a header of its own, or the end of them.
        if not _TOKEN.fullmatch(header) or not value.isprintable():
            raise ValueError(f"{name} is not of the form name=value,name=value")
        yield header, value


def _read_timeout(text: str) -> float:
    """Read milliseconds; a collector may cost less than OpenTelemetry allows it."""
    milliseconds = int(text) if text.isdecimal() else 0
    return min(milliseconds / 1000 or LONGEST_TIMEOUT_S, LONGEST_TIMEOUT_S)


def _read_resource(environ: Mapping[str, str]) -> dict[str, str]:
    pod = {
        attribute: environ[name]
        for name, attribute in POD_ATTRIBUTES
        if environ.get(name)
    }
    said = dict(_read_pairs(environ.get("OTEL_RESOURCE_ATTRIBUTES", "")))
    name = environ.get("OTEL_SERVICE_NAME", "").strip() or said.get("service.name")
    return {**pod, **said, "service.name": name or SERVICE_NAME}


def _read_pairs(text: str) -> Iterator[tuple[str, str]]:
    """Yield what is written name=value,name=value, with escapes as in an address."""
    for pair in text.split(","):
        name, sign, value = pair.partition("=")
        if name.strip() and sign:
            yield name.strip(), _unescape(value.strip())


def _unescape(text: str) -> str:
    escaped = text.encode(errors="surrogateescape")
    plain = _ESCAPED.sub(lambda match: bytes.fromhex(match[1].decode()), escaped)
    return plain.decode(errors="replace")
