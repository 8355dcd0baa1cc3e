"""Which network addresses are public: none of this machine or a private network, in whatever form it is wrapped."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

NAT64 = tuple(IPv6Network(block) for block in ("64:ff9b::/96", "64:ff9b:1::/48"))
"""Translated to the IPv4 address in their last 32 bits (RFC 6052); the second is for private networks (RFC 8215)."""
ISATAP = (0x00005EFE, 0x02005EFE)
"""Bits 64 to 95 of an address whose last 32 bits are an IPv4 address (RFC 5214)."""
NOT_PUBLIC = tuple(IPv6Network(block) for block in ("64:ff9b:1::/48", "fec0::/10", "fc00::/7", "fe80::/10", "::/96"))
"""Site-local (deprecated, still routed), unique local, link-local, and IPv4-compatible addresses."""


def is_public(address: str) -> bool:
    """Whether an IP address is public, and so is every IPv4 address that it may wrap."""
    parsed = ip_address(address.partition("%")[0])
    return all(_is_global(each) for each in (parsed, *_wrapped(parsed)))


def _is_global(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv6Address):
        if any(address in block for block in NOT_PUBLIC):
            return False
        if address in NAT64[0]:
            return True  # as far as the address that it wraps is
    return address.is_global and not address.is_multicast


def _wrapped(address: IPv4Address | IPv6Address) -> list[IPv4Address]:
    """The IPv4 addresses in an IPv6 address: mapped, 6to4, both of Teredo, NAT64 and ISATAP."""
    if isinstance(address, IPv4Address):
        return []
    found = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    last = int(address) & 0xFFFFFFFF
    if any(address in block for block in NAT64) or (int(address) >> 32) & 0xFFFFFFFF in ISATAP:
        found.append(IPv4Address(last))
    return [each for each in found if each is not None]
