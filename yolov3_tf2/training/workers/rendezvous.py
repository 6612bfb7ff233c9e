"""Where the workers of a distributed training meet before TensorFlow connects them.

TensorFlow waits without a time limit for a worker that never comes. It ignores signals
meanwhile, and no other Python thread can run. So the workers first connect to worker 0
and exchange what they are about to do. While TensorFlow connects them, a watchdog
process watches each of them.
"""

import socket
import time
from contextlib import contextmanager

from yolov3_tf2.errors import InputError
from yolov3_tf2.training.workers.link import Link
from yolov3_tf2.training.workers.watch import watchdog

# Machines start, and download a Docker image and inputs, at different speeds.
ARRIVAL_SECONDS = 15 * 60
# The time that TensorFlow has to connect the workers, once all have arrived.
CONNECT_SECONDS = 3 * 60
_RETRY_SECONDS = 0.5
_GREETING_SECONDS = 10
_GREETING_BYTES = 200
_GREETING = "train-superbai"


class Rendezvous:
    """The connections of one worker to the others; a context manager.

    Entering it waits for all workers. A single worker does not wait.
    """

    def __init__(self, addresses, rank, seconds=ARRIVAL_SECONDS):
        """Connects to nothing yet.

        Args:
            addresses: `host:port` of each worker. Worker 0 listens on its own until all
                have arrived; the others only check that theirs is free. TensorFlow
                listens on them later.
            rank: index of this worker in `addresses`.
            seconds: how long to wait for the other workers.
        """
        self._addresses, self._rank, self._seconds = addresses, rank, seconds
        self._links = {}  # By the rank at the other end.

    def __enter__(self):
        """Waits for the other workers.

        Raises:
            InputError: a worker does not arrive in time, worker 0 refuses this one,
                or the port is in use.
        """
        deadline = time.monotonic() + self._seconds
        try:
            if len(self._addresses) > 1:
                if self._rank:
                    self._connect(deadline)
                # The others only check their port: TensorFlow fails if it is in use.
                with self._open_port() as server:
                    if self._rank == 0:
                        self._accept_all(server, deadline)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error):
        for link in self._links.values():
            link.close()
        self._links = {}

    def exchange(self, value):
        """Returns a list of the `value` of each worker, by rank; JSON can write them.

        Raises:
            InputError: a worker has ended.
        """
        if self._rank:
            self._links[0].send({"value": value})
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
                    self._links[other].send({"ended": rank})
                raise
        for link in self._links.values():
            link.send({"values": values})
        return values

    @contextmanager
    def watchdog(self, seconds=CONNECT_SECONDS):
        """Kills this process if another worker ends within the block.

        An `exchange` must follow the block.

        Args:
            seconds: time limit of the block, after which this process is killed too.
        """
        if not self._links:
            yield
            return
        messages = {link: str(self._ended(rank)) for rank, link in self._links.items()}
        timeout_message = (
            f"TensorFlow did not connect the {len(self._addresses)} workers within "
            f"{seconds} s; can each machine reach all of the addresses "
            f"{', '.join(self._addresses)}?"
        )
        with watchdog(messages, timeout_message, seconds):
            yield

    def _open_port(self):
        """Returns a socket that listens on this worker's port."""
        port = _split_address(self._addresses[self._rank])[1]
        try:
            if socket.has_dualstack_ipv6():
                return socket.create_server(
                    ("", port), family=socket.AF_INET6, dualstack_ipv6=True
                )
            return socket.create_server(("", port))
        except OSError as error:
            raise self._error(
                f"cannot listen on port {port} ({error}); is another training run "
                "active on this machine?"
            ) from error

    def _accept_all(self, server, deadline):
        """Accepts the connections of all other workers, as worker 0."""
        refusals = set()
        while missing := set(range(1, len(self._addresses))) - set(self._links):
            server.settimeout(max(deadline - time.monotonic(), 0.01))
            try:
                connection, _ = server.accept()
            except TimeoutError:
                refused = "".join(f" Refused: {text}." for text in sorted(refusals))
                raise self._error(
                    f"{self._names(missing)} did not connect within {self._seconds} s; "
                    "start the same command on each machine, and check that they can "
                    f"reach port {_split_address(self._addresses[0])[1]} of this one."
                    f"{refused}"
                ) from None
            link = Link(connection)
            greeting = link.receive(_GREETING_SECONDS, _GREETING_BYTES)
            if not isinstance(greeting, dict) or _GREETING not in greeting:
                link.close()  # Not a worker.
                continue
            rank = greeting[_GREETING]
            refusal = self._refusal(rank, greeting.get("workers"))
            if refusal:
                refusals.add(refusal)
                link.send({"refused": refusal})
                link.close()
                continue
            if rank in self._links:
                self._links[rank].close()
            self._links[rank] = link
        for link in self._links.values():
            link.send({"present": "all"})

    def _refusal(self, rank, workers):
        """Returns why a worker cannot take part; None if it can."""
        expected = len(self._addresses)
        if workers != expected:
            return f"expected one of {expected} workers, got one of {workers}"
        if rank not in range(1, expected):
            return f"expected a worker of 1 to {expected - 1}, got worker {rank}"
        # A worker that was restarted may replace its earlier self.
        if rank in self._links and not self._links[rank].is_closed():
            return f"got worker {rank} twice"
        return None

    def _connect(self, deadline):
        """Connects to worker 0, as another worker, and waits until all have arrived."""
        host, port = _split_address(self._addresses[0])
        while True:
            left = max(deadline - time.monotonic(), 0.01)
            try:
                connection = socket.create_connection((host, port), timeout=left)
                break
            except OSError as error:
                if time.monotonic() + _RETRY_SECONDS > deadline:
                    raise self._error(
                        f"{self._names([0])} did not answer within {self._seconds} s "
                        f"({error}); was the same command started there, and can this "
                        "machine reach that one?"
                    ) from error
                time.sleep(_RETRY_SECONDS)
        self._links[0] = link = Link(connection)
        link.send({_GREETING: self._rank, "workers": len(self._addresses)})
        answer = self._receive(0)
        if "refused" in answer:
            raise self._error(
                f"{self._names([0])} refused it: {answer['refused']}; all workers need "
                "the same list of addresses, and each its own index in it."
            )

    def _receive(self, rank):
        message = self._links[rank].receive()
        if message is None:
            raise self._ended(rank)
        return message

    def _ended(self, rank):
        return self._error(
            f"{self._names([rank])} ended before training started, or cannot be "
            "reached; see its own log."
        )

    def _error(self, text):
        return InputError(f"{self._names([self._rank])}: {text}")

    def _names(self, ranks):
        return ", ".join(f"worker {r} ({self._addresses[r]})" for r in sorted(ranks))


def _split_address(address):
    """Returns the host, without the brackets of IPv6, and the port."""
    host, _, port = address.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)
