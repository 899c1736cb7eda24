"""The socket requests come in by, the connections made through it, and ending both without losing a request.

Closing a listening socket resets every connection that was made and not yet accepted, and a request may be on its way
in it. So first no more connections are made, then those that were are accepted, and then it is closed. A connection on
which nothing is under way gets a moment more before it is closed: a request may have arrived and not been read.
"""

import ctypes
import socket
import struct
import sys
import time

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LAST_ARRIVALS_SECONDS = 0.1
"""How long the handshakes begun before the hold may take."""
ACCEPT_SECONDS = 10.0
"""How long the connections made by then may wait to be accepted, on a machine that has much else to do."""
LOOK_SECONDS = 0.02
LAST_REQUEST_SECONDS = 0.5
"""How long a connection without a request stays open once the end has begun."""

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


def wait_for_the_last(listener: socket.socket) -> None:
    """Return when whoever has connected is accepted, by this process or by others, and nobody connects any more."""
    hold_new_connections(listener)
    time.sleep(LAST_ARRIVALS_SECONDS)
    deadline = time.monotonic() + ACCEPT_SECONDS
    while _waiting_to_be_accepted(listener) and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)


def _waiting_to_be_accepted(listener: socket.socket) -> int:
    """Return how many connections are made and not yet accepted; 0 where the system does not tell."""
    if sys.platform != "linux":
        return 0
    # Of a listening socket, the field for unacknowledged segments holds the length of this queue: tcp(7), TCP_INFO,
    # <linux/tcp.h>, after eight bytes and four numbers.
    told = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 28)
    return int(struct.unpack_from("=24xI", told)[0])


class Connection(HttpToolsProtocol):
    """A caller's connection, which at the server's end is closed only when no request is under way in it.

    One that is idle gets a moment, since a request may have arrived and not been read; one in the middle of a request,
    its head included, is answered first. By then every answer says that the connection closes (`kit/stopping.py`).
    """

    _unanswered = 0
    _is_ending = False

    def shutdown(self) -> None:
        """Begin the end; the server calls it once, and waits until every connection is closed."""
        self._is_ending = True
        self.loop.call_later(LAST_REQUEST_SECONDS, self._close_if_idle)

    def on_message_begin(self) -> None:
        """Count a request from the first byte of its head."""
        self._unanswered += 1
        super().on_message_begin()

    def on_response_complete(self) -> None:
        """Count it as answered, and close the connection if this was the last."""
        self._unanswered -= 1
        if self._is_ending:
            self._close_if_idle()
        super().on_response_complete()

    def _close_if_idle(self) -> None:
        if not self._unanswered:
            self.transport.close()
