"""The socket requests come in by, and closing it without turning anybody away who has connected.

Closing a listening socket resets every connection that was made and not yet accepted, and a request may be on its way
in it. So first no more connections are made, then those that were are accepted, and then it is closed.
"""

import asyncio
import ctypes
import socket
import struct
import sys
import time

LAST_ARRIVALS_SECONDS = 0.1
"""How long the connections made before the hold may take to be accepted."""

_SO_ATTACH_FILTER = 26
_WITHOUT_SYN = (
    # Classic BPF over the TCP header, <linux/filter.h>: code, jump if true, jump if false, operand.
    (0x30, 0, 0, 13),  # load the byte that holds the flags (RFC 9293, section 3.1)
    (0x54, 0, 0, 0x12),  # keep SYN and ACK
    (0x15, 0, 1, 0x02),  # SYN alone asks for a new connection
    (0x06, 0, 0, 0),  # drop it: the caller asks again in a second, and is refused by then or served by another
    (0x06, 0, 0, 0xFFFFFFFF),  # let everything else pass
)


def listen_on(host: str, port: int) -> socket.socket:
    """Return a socket bound to an address; it refuses connections until a server takes it.

    Raises:
        OSError: the address is not ours, or something is there already.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener


def hold_new_connections(listener: socket.socket) -> None:
    """Let no further connection be made, for every process that shares the socket; on Linux, and nothing elsewhere."""
    if sys.platform != "linux":
        return
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in _WITHOUT_SYN))
    program = struct.pack("HP", len(_WITHOUT_SYN), ctypes.addressof(code))
    listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


async def let_the_last_in(listener: socket.socket) -> None:
    """Return when whoever has connected is accepted and nobody connects any more."""
    hold_new_connections(listener)
    await asyncio.sleep(LAST_ARRIVALS_SECONDS)


def wait_for_the_last(listener: socket.socket) -> None:
    """Do the same in a process without an event loop, while others accept."""
    hold_new_connections(listener)
    time.sleep(LAST_ARRIVALS_SECONDS)
