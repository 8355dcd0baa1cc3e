"""Reads the one Host header of a request, against DNS rebinding: names can be made to point here, addresses cannot."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import ip_address

_HOST = re.compile(rb"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::[0-9]{1,5})?")


def host_name(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The host name in lower case, without port and brackets; None if it is missing, repeated or malformed."""
    values = [value for key, value in headers if key.lower() == b"host"]
    found = _HOST.fullmatch(values[0].strip()) if len(values) == 1 else None
    return (found[1] or found[2]).decode("ascii").lower() if found else None


def is_loopback(host: str) -> bool:
    """Whether a host name is `localhost` or a loopback address."""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
