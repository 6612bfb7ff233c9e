"""Where the workers of a distributed training meet, before TensorFlow knows of them.

TensorFlow's own meeting waits without end for a worker that never comes, deaf to
signals and in a call that lets no other thread of Python run. So the workers first
connect to the one of rank 0, and tell each other over these connections what they are
about to do; while TensorFlow connects them, a process beside each watches.
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

from yolov3_tf2.errors import InputError

# For machines that start, fetch an image and their inputs at different speeds.
COMING_SECONDS = 15 * 60
# For TensorFlow, once all are there.
CONNECTING_SECONDS = 3 * 60
_RETRY_SECONDS = 0.5
_GREETING_SECONDS = 10
_LONGEST_MESSAGE = 10 * 2**20
_GREETING = "train-superbai"


class Rendezvous:
    """The connections of one worker to the others; to be used as a context.

    Entering it waits for all workers. A single worker has nobody to wait for.
    """

    def __init__(self, addresses, rank, seconds=COMING_SECONDS):
        """Connects nothing yet.

        Args:
            addresses: `host:port` of each worker. Rank 0 listens on its own until all
                have come, and no longer: TensorFlow takes it after that.
            rank: the place of this worker among them.
            seconds: how long to wait for the others.
        """
        self._addresses, self._rank, self._seconds = addresses, rank, seconds
        self._links = {}  # The rank at the other end of each connection.

    def __enter__(self):
        """Waits for the other workers.

        Raises:
            InputError: one of them has not come in time, or the port is taken.
        """
        deadline = time.monotonic() + self._seconds
        try:
            if len(self._addresses) > 1:
                (self._connect if self._rank else self._listen)(deadline)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error):
        for link in self._links.values():
            link.close()
        self._links = {}

    def exchange(self, value):
        """Returns a list of what each worker gives here, by rank: JSON's types.

        Raises:
            InputError: a worker has ended.
        """
        if self._rank:
            self._send(0, {"value": value})
            answer = self._receive(0)
            if "ended" in answer:
                raise self._ended(answer["ended"])
            return answer["values"]
        values = [value]
        for rank in sorted(self._links):
            try:
                values.append(self._receive(rank)["value"])
            except InputError:
                for other in set(self._links) - {rank}:
                    self._send(other, {"ended": rank})
                raise
        for rank in self._links:
            self._send(rank, {"values": values})
        return values

    @contextmanager
    def watched(self, seconds=CONNECTING_SECONDS):
        """Ends this process, from outside, where another worker ends within the block.

        It prints why, and kills: a call that lets no Python run cannot be ended
        otherwise. To be followed by an `exchange`.

        Args:
            seconds: it is also ended where the block takes longer.
        """
        if not self._links:
            yield
            return
        messages = {
            link.fileno(): str(self._ended(rank)) for rank, link in self._links.items()
        }
        late = (
            f"the {len(self._addresses)} workers have met, but cannot train together: "
            f"expected them connected in {seconds} s; can each reach the addresses "
            f"{', '.join(self._addresses)} from its own machine?"
        )
        watch = subprocess.Popen(
            [sys.executable, "-m", __name__, str(os.getpid()), str(seconds), late]
            + [json.dumps(messages)],
            cwd=Path(__file__).parents[1],
            stdin=subprocess.PIPE,
            pass_fds=list(messages),
        )
        try:
            yield
        finally:
            watch.kill()
            watch.communicate()

    def _listen(self, deadline):
        port = _split(self._addresses[0])[1]
        try:
            server = socket.create_server(("", port))
        except OSError as error:
            raise InputError(
                f"worker 0: cannot listen on port {port} ({error}); is another "
                "training running on this machine?"
            ) from error
        expected = set(range(1, len(self._addresses)))
        with server:
            while missing := expected - set(self._links):
                server.settimeout(max(deadline - time.monotonic(), 0.01))
                try:
                    link, _ = server.accept()
                except TimeoutError:
                    raise InputError(
                        f"worker 0: {self._names(missing)} did not come within "
                        f"{self._seconds} s; expected the same command on each "
                        f"machine, and that they reach port {port} of this one."
                    ) from None
                rank = _greeted(link, len(self._addresses))
                if rank in missing:
                    self._links[rank] = _kept_alive(link)
                else:
                    link.close()  # A stranger.
        # Each speaks when it is answered: what arrives is one message at a time.
        for rank in self._links:
            self._send(rank, "all are there")

    def _connect(self, deadline):
        host, port = _split(self._addresses[0])
        while True:
            left = max(deadline - time.monotonic(), 0.01)
            try:
                link = socket.create_connection((host, port), timeout=left)
                break
            except OSError as error:
                if time.monotonic() + _RETRY_SECONDS > deadline:
                    raise InputError(
                        f"worker {self._rank}: {self._names([0])} did not answer "
                        f"within {self._seconds} s ({error}); was the same command "
                        "started there, and can this machine reach it?"
                    ) from error
                time.sleep(_RETRY_SECONDS)
        self._links[0] = _kept_alive(link)
        greeting = {_GREETING: self._rank, "workers": len(self._addresses)}
        self._send(0, greeting)
        self._receive(0)

    def _send(self, rank, message):
        with suppress(OSError):  # It has ended, which the next who reads from it sees.
            self._links[rank].sendall(json.dumps(message).encode() + b"\n")

    def _receive(self, rank):
        line = _read_line(self._links[rank])
        if not line:
            raise self._ended(rank)
        return json.loads(line)

    def _ended(self, rank):
        return InputError(
            f"worker {self._rank}: {self._names([rank])} has ended before the training "
            "began; its own log says why."
        )

    def _names(self, ranks):
        return ", ".join(f"worker {r} ({self._addresses[r]})" for r in sorted(ranks))


def _split(address):
    host, _, port = address.rpartition(":")
    return host, int(port)


def _kept_alive(link):
    """Lets a connection end where the machine at its other end is gone."""
    link.settimeout(None)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("KEEPIDLE", 20), ("KEEPINTVL", 10), ("KEEPCNT", 3)):
        if hasattr(socket, f"TCP_{name}"):  # macOS has not all of them.
            link.setsockopt(socket.IPPROTO_TCP, getattr(socket, f"TCP_{name}"), value)
    return link


def _greeted(link, workers):
    """The rank that a new connection says it has, None where it is no worker's."""
    link.settimeout(_GREETING_SECONDS)
    try:
        greeting = json.loads(_read_line(link))
        return greeting[_GREETING] if greeting["workers"] == workers else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _read_line(link):
    """Reads up to the end of a line; nothing where the connection ends before."""
    data = b""
    while not data.endswith(b"\n"):
        try:
            more = link.recv(65536)
        except ConnectionError:
            more = b""
        if not more or len(data) > _LONGEST_MESSAGE:
            return b""
        data += more
    return data


def _watch(process, seconds, late, messages):
    """Kills `process` where one of the connections ends, or time is up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The terminal's, for all its group.
    links = {socket.socket(fileno=int(fd)): text for fd, text in messages.items()}
    deadline = time.monotonic() + seconds
    while True:
        left = max(deadline - time.monotonic(), 0)
        ready, _, _ = select.select([sys.stdin, *links], [], [], left)
        if sys.stdin in ready:  # The process that is watched has ended.
            return
        message = None if ready else late
        for link in ready:
            try:
                is_open = link.recv(1, socket.MSG_PEEK)
            except ConnectionError:
                is_open = b""
            text = links.pop(link)  # One that has something to say is through.
            if not is_open:
                message = text
        if message:
            print(f"error: {message}", file=sys.stderr, flush=True)
            os.kill(process, signal.SIGKILL)
            return


if __name__ == "__main__":
    _watch(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3], json.loads(sys.argv[4]))
