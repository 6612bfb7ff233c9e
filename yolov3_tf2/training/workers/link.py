"""A connection between two workers: one message per line, as JSON."""

import json
import select
import socket

# When the other machine disappears, the connection fails within a minute: by keep-alive
# probes while it is idle, by USER_TIMEOUT while sent data is not acknowledged.
_TCP = {"KEEPIDLE": 20, "KEEPINTVL": 10, "KEEPCNT": 3, "USER_TIMEOUT": 50_000}


class Link:
    """One end of a TCP connection."""

    def __init__(self, connection):
        """Takes over a connected `socket.socket`."""
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _TCP.items():
            option = getattr(socket, f"TCP_{name}", None)
            if option is not None:  # macOS lacks some of them.
                connection.setsockopt(socket.IPPROTO_TCP, option, value)
        self._connection = connection
        self._lines = connection.makefile("rb")

    def fileno(self):
        return self._connection.fileno()

    def close(self):
        self._lines.close()
        self._connection.close()

    def send(self, message):
        """Sends a message, which JSON can write; returns whether it was sent."""
        try:
            self._connection.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            return False
        return True

    def receive(self, seconds=None, max_bytes=-1):
        """Waits for the next message.

        Args:
            seconds: time limit for each part of it to arrive; None for no limit.
            max_bytes: maximum length of the message; -1 for no limit.

        Returns:
            The message; None if the connection is closed or fails, the time is up, or
            the other end sends something else than JSON.
        """
        self._connection.settimeout(seconds)
        try:
            line = self._lines.readline(max_bytes)
            return json.loads(line) if line.endswith(b"\n") else None
        # Not only ConnectionError: ETIMEDOUT and EHOSTUNREACH are other OSErrors.
        except (OSError, ValueError):
            return None
        finally:
            self._connection.settimeout(None)

    def is_closed(self):
        """Returns whether the other end is known to have closed or failed by now."""
        if not select.select([self._connection], [], [], 0)[0]:
            return False
        try:
            return not self._connection.recv(1, socket.MSG_PEEK)
        except OSError:
            return True
