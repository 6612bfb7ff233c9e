"""A connection between two workers: lines of JSON, a message each."""

import json
import select
import socket

# Less than a minute after its machine is gone, the other end counts as ended: by
# probes where nobody sends, by the last where something sent is not acknowledged.
_TCP = {"KEEPIDLE": 20, "KEEPINTVL": 10, "KEEPCNT": 3, "USER_TIMEOUT": 50_000}


class Link:
    """One end of a TCP connection."""

    def __init__(self, connection):
        """Takes a `socket.socket` over; without a time limit but what it may have."""
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _TCP.items():
            option = getattr(socket, f"TCP_{name}", None)
            if option is not None:  # macOS has not all of them.
                connection.setsockopt(socket.IPPROTO_TCP, option, value)
        self._connection = connection
        self._lines = connection.makefile("rb")

    def fileno(self):
        return self._connection.fileno()

    def close(self):
        self._lines.close()
        self._connection.close()

    def send(self, message):
        """Sends what JSON can write, where the other end is still there.

        Returns:
            Whether it was sent.
        """
        try:
            self._connection.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            return False
        return True

    def receive(self, seconds=None, longest=-1):
        """Waits for the next message.

        Args:
            seconds: how long to wait for more of it, None without end.
            longest: bytes that it may have; -1 for any number.

        Returns:
            The message; None where the other end has ended, its machine is gone, it
            took too long, or it does not speak this language.
        """
        self._connection.settimeout(seconds)
        try:
            line = self._lines.readline(longest)
            return json.loads(line) if line.endswith(b"\n") else None
        # An OSError is not always a ConnectionError: ETIMEDOUT, EHOSTUNREACH.
        except (OSError, ValueError):
            return None
        finally:
            self._connection.settimeout(None)

    def has_ended(self):
        """Whether the other end has ended or is gone, as far as is known by now."""
        if not select.select([self._connection], [], [], 0)[0]:
            return False
        try:
            return not self._connection.recv(1, socket.MSG_PEEK)
        except OSError:
            return True
