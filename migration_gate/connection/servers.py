"""
Which servers the parameters name, in the order in which they are tried.

Asks the resolver, of each host at its turn; opens no connection.
"""

from __future__ import annotations

import _socket  # socket makes enumerations of what it has from there: 1 ms
import random

from collections.abc import Iterator, Mapping

from migration_gate.report.errors import SettingFault, SettingsError


PREFER_STANDBY = "prefer-standby"
LABEL_MAX = 63


def each_server(parameters: Mapping[str, str]) -> Iterator[dict[str, str] | OSError]:
    """
    Yield the parameters of each server: every address of every host.

    A host that the resolver does not know is yielded as its error. Hosts of a service
    are libpq's own matter, and stay together.

    Raises:
        SettingsError: A host that can be none.
    """
    hosts = list(_each_host(parameters))
    if parameters.get("load_balance_hosts") == "random":
        random.shuffle(hosts)
    if parameters.get("target_session_attrs") == PREFER_STANDBY:
        standbys = [{**host, "target_session_attrs": "standby"} for host in hosts]
        hosts = standbys + [{**host, "target_session_attrs": "any"} for host in hosts]
    for host in hosts:
        try:
            yield from _each_address(host)
        except OSError as error:
            name = host.get("host")
            yield OSError(f"failed to resolve host {name!r}: {error}")


def _each_host(parameters: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Take the lists of hosts, addresses and ports apart; their lengths fit."""
    lists = {
        keyword: parameters[keyword].split(",")
        for keyword in ("host", "hostaddr", "port")
        if parameters.get(keyword)
    }
    for index in range(max([1, *map(len, lists.values())])):
        yield {
            **parameters,
            **{
                keyword: parts[index] if len(parts) > 1 else parts[0]
                for keyword, parts in lists.items()
            },
        }


def _each_address(host: Mapping[str, str]) -> Iterator[dict[str, str]]:
    name = host.get("host", "")
    if not name or name.startswith(("/", "@")) or host.get("hostaddr"):
        yield dict(host)
        return
    try:
        found = _socket.getaddrinfo(
            _encode(name), None, proto=_socket.IPPROTO_TCP, type=_socket.SOCK_STREAM
        )
    except UnicodeError:  # for what no host name can be
        fault = SettingFault(
            name="connection",
            rule="names a host that no host can have",
            remedy="Each part of a host name has 1 to 63 characters.",
        )
        raise SettingsError([fault]) from None
    addresses = [str(address[0]) for *_, address in found]
    if host.get("load_balance_hosts") == "random":
        random.shuffle(addresses)
    for address in addresses:
        yield {**host, "hostaddr": address}


def _encode(name: str) -> str | bytes:
    """Return a name as the resolver takes it; one in other letters is for a codec."""
    parts = name.removesuffix(".").split(".")
    is_plain = name.isascii() and all(1 <= len(p) <= LABEL_MAX for p in parts)
    return name.encode() if is_plain else name
