"""Which addresses may be sent to: public ones alone, because the browser names them and the request is ours.

A name is looked up once, every address it has is judged, and the connection is made to an address that was judged: a
name that answers differently the second time gains nothing (OWASP Server-Side Request Forgery Prevention Cheat Sheet).
"""

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from quill.ports.push import UnusableDevice

LONGEST_ENDPOINT = 2048
LOOKUP_SECONDS = 3.0

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Lookup = Callable[[str, int], Awaitable[list[str]]]
"""Returns the addresses of a name; raises ``OSError``."""

_VISIBLE_ASCII = re.compile(r"[\x21-\x5b\x5d-\x7e]+")
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?\.?")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class LookupFailed(Exception):
    """The name could not be looked up just now."""


@dataclass(frozen=True, slots=True)
class Place:
    """An address that was judged.

    Attributes:
        origin: ``https://host[:port]``, as the browser named it.
        host: the name the certificate must bear.
        authority: for the ``Host`` header.
        addresses: where to connect, in order of preference.
    """

    origin: str
    host: str
    authority: str
    is_encrypted: bool
    addresses: tuple[IpAddress, ...]


async def look_up(host: str, port: int) -> list[str]:
    """Return the addresses of a name, by the system's resolver."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


def is_public(address: IpAddress) -> bool:
    """Tell whether an address is one of the open internet, whatever older address it wraps."""
    inner = _unwrapped(address)
    if inner is not None:
        return is_public(inner)
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def _unwrapped(address: IpAddress) -> ipaddress.IPv4Address | None:
    """Return the IPv4 address an IPv6 one stands for: mapped, 6to4, or translated (RFC 4291, 3056, 6052)."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


async def judge(endpoint: str, *, allows_loopback: bool, lookup: Lookup = look_up) -> Place:
    """Return where an endpoint leads, all of it fit to be sent to.

    Args:
        endpoint: as the browser gave it.
        allows_loopback: development alone: this machine may be addressed, by http and on any port.
        lookup: how names become addresses.

    Raises:
        UnusableDevice: it must not be sent to, now or ever.
        LookupFailed: the name could not be looked up just now.
    """
    parts = _split(endpoint)
    port = _port_of(parts, allows_loopback=allows_loopback)
    host = parts.hostname or ""
    addresses = await _addresses(host, port, lookup)
    is_loopback = allows_loopback and all(address.is_loopback for address in addresses)
    if not is_loopback and not all(is_public(address) for address in addresses):
        raise UnusableDevice("endpoint", "address_not_public")
    if not is_loopback and (parts.scheme != "https" or port != 443):
        raise UnusableDevice("endpoint", "not_https")
    return Place(
        origin=f"{parts.scheme}://{parts.netloc}",
        host=host,
        authority=parts.netloc,
        is_encrypted=parts.scheme == "https",
        addresses=addresses,
    )


def _split(endpoint: str) -> SplitResult:
    if len(endpoint) > LONGEST_ENDPOINT or not _VISIBLE_ASCII.fullmatch(endpoint):
        raise UnusableDevice("endpoint", "not_a_url")
    try:
        parts = urlsplit(endpoint)
    except ValueError as error:
        raise UnusableDevice("endpoint", "not_a_url") from error
    if "@" in parts.netloc or not parts.hostname:
        raise UnusableDevice("endpoint", "not_a_url")
    return parts


def _port_of(parts: SplitResult, *, allows_loopback: bool) -> int:
    schemes = {"https": 443, "http": 80} if allows_loopback else {"https": 443}
    if parts.scheme not in schemes:
        raise UnusableDevice("endpoint", "not_https")
    try:
        port = parts.port or schemes[parts.scheme]
    except ValueError as error:
        raise UnusableDevice("endpoint", "not_a_url") from error
    if port != 443 and not allows_loopback:
        raise UnusableDevice("endpoint", "port_not_allowed")
    return port


async def _addresses(host: str, port: int, lookup: Lookup) -> tuple[IpAddress, ...]:
    try:
        return (ipaddress.ip_address(host),)
    except ValueError:
        if not _NAME.fullmatch(host):
            raise UnusableDevice("endpoint", "not_a_url") from None
    try:
        async with asyncio.timeout(LOOKUP_SECONDS):
            found = await lookup(host, port)
    except socket.gaierror as error:
        if error.errno == socket.EAI_NONAME:
            raise UnusableDevice("endpoint", "no_such_host") from error
        raise LookupFailed from error
    except OSError as error:
        raise LookupFailed from error
    except UnicodeError as error:
        raise UnusableDevice("endpoint", "not_a_url") from error
    if not found:
        raise UnusableDevice("endpoint", "no_such_host")
    return tuple(dict.fromkeys(ipaddress.ip_address(text.partition("%")[0]) for text in found))
