"""Where the workers of a distributed training meet, before TensorFlow knows of them.

TensorFlow's own meeting waits without end for a worker that never comes, deaf to
signals and in a call that lets no other thread of Python run. So the workers first
connect to the one of rank 0, and tell each other over these connections what they are
about to do; while TensorFlow connects them, a process beside each watches.
"""

import socket
import time
from contextlib import contextmanager

from yolov3_tf2.errors import InputError
from yolov3_tf2.training.workers import watch
from yolov3_tf2.training.workers.link import Link

# For machines that start, fetch an image and their inputs at different speeds.
COMING_SECONDS = 15 * 60
# For TensorFlow, once all are there.
CONNECTING_SECONDS = 3 * 60
_RETRY_SECONDS = 0.5
_GREETING_SECONDS = 10
_GREETING_BYTES = 200
_GREETING = "train-superbai"


class Rendezvous:
    """The connections of one worker to the others; to be used as a context.

    Entering it waits for all workers. A single worker has nobody to wait for.
    """

    def __init__(self, addresses, rank, seconds=COMING_SECONDS):
        """Connects nothing yet.

        Args:
            addresses: `host:port` of each worker, which takes its own for a moment;
                rank 0 until all have come. TensorFlow takes them after that.
            rank: the place of this worker among them.
            seconds: how long to wait for the others.
        """
        self._addresses, self._rank, self._seconds = addresses, rank, seconds
        self._links = {}  # By the rank at the other end.

    def __enter__(self):
        """Waits for the other workers.

        Raises:
            InputError: one of them has not come in time, or the worker of rank 0
                refuses this one, or its port is taken.
        """
        deadline = time.monotonic() + self._seconds
        try:
            if len(self._addresses) > 1:
                if self._rank:
                    self._connect(deadline)
                # Of rank 1 and above for TensorFlow alone, which fails if it is taken.
                with self._server() as server:
                    if self._rank == 0:
                        self._listen(server, deadline)
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
    def watched(self, seconds=CONNECTING_SECONDS):
        """Ends this process where another worker ends within the block, see `watch`.

        To be followed by an `exchange`.

        Args:
            seconds: it is also ended where the block takes longer.
        """
        if not self._links:
            yield
            return
        messages = {link: str(self._ended(rank)) for rank, link in self._links.items()}
        late = (
            f"the {len(self._addresses)} workers have met, but cannot train together: "
            f"expected them connected in {seconds} s; can each reach the addresses "
            f"{', '.join(self._addresses)} from its own machine?"
        )
        with watch.watched(messages, late, seconds):
            yield

    def _server(self):
        """Listens on this worker's port."""
        port = _split(self._addresses[self._rank])[1]
        try:
            if socket.has_dualstack_ipv6():
                return socket.create_server(
                    ("", port), family=socket.AF_INET6, dualstack_ipv6=True
                )
            return socket.create_server(("", port))
        except OSError as error:
            raise self._error(
                f"cannot listen on port {port} ({error}); is another training running "
                "on this machine?"
            ) from error

    def _listen(self, server, deadline):
        refusals = set()
        while missing := set(range(1, len(self._addresses))) - set(self._links):
            server.settimeout(max(deadline - time.monotonic(), 0.01))
            try:
                connection, _ = server.accept()
            except TimeoutError:
                refused = "".join(f" Refused: {text}." for text in sorted(refusals))
                raise self._error(
                    f"{self._names(missing)} did not come within {self._seconds} s; "
                    "expected the same command on each machine, and that they reach "
                    f"port {_split(self._addresses[0])[1]} of this one.{refused}"
                ) from None
            link = Link(connection)
            greeting = link.receive(_GREETING_SECONDS, _GREETING_BYTES)
            if not isinstance(greeting, dict) or _GREETING not in greeting:
                link.close()  # A stranger.
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
        """Why a worker is not one of these, None if it is."""
        expected = len(self._addresses)
        if workers != expected:
            return f"expected one of {expected} workers, got one of {workers}"
        if rank not in range(1, expected):
            return f"expected a worker of 1 to {expected - 1}, got worker {rank}"
        # One that was started again may take the place that it had.
        if rank in self._links and not self._links[rank].has_ended():
            return f"got worker {rank} twice"
        return None

    def _connect(self, deadline):
        host, port = _split(self._addresses[0])
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
                        "machine reach it?"
                    ) from error
                time.sleep(_RETRY_SECONDS)
        self._links[0] = link = Link(connection)
        link.send({_GREETING: self._rank, "workers": len(self._addresses)})
        answer = self._receive(0)
        if "refused" in answer:
            raise self._error(
                f"{self._names([0])} refuses it: {answer['refused']}; give all workers "
                "the same list of addresses, and each its own place in it."
            )

    def _receive(self, rank):
        message = self._links[rank].receive()
        if message is None:
            raise self._ended(rank)
        return message

    def _ended(self, rank):
        return self._error(
            f"{self._names([rank])} has ended before the training began, or is out of "
            "reach; its own log says why."
        )

    def _error(self, text):
        return InputError(f"{self._names([self._rank])}: {text}")

    def _names(self, ranks):
        return ", ".join(f"worker {r} ({self._addresses[r]})" for r in sorted(ranks))


def _split(address):
    """Host and port of an address; that of IPv6 may have brackets."""
    host, _, port = address.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)
