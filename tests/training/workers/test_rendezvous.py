"""Workers that meet, exchange values, and notice when another one ends."""

import json
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from project import REPOSITORY, free_addresses

from yolov3_tf2.errors import InputError
from yolov3_tf2.training.workers.link import Link
from yolov3_tf2.training.workers.rendezvous import Rendezvous


def in_parallel(functions):
    """Runs functions at the same time; returns their results or errors."""
    with ThreadPoolExecutor(len(functions)) as pool:
        futures = [pool.submit(function) for function in functions]
        return [future.exception() or future.result() for future in futures]


def worker(rank, addresses):
    """Meets the others and exchanges the ranks; returns all of them."""
    with Rendezvous(addresses, rank, seconds=20) as rendezvous:
        return rendezvous.exchange(rank)


def connect(address):
    """Connects to an address of 127.0.0.1 as soon as something listens there."""
    for _ in range(400):
        try:
            return socket.create_connection(("127.0.0.1", address.split(":")[1]))
        except ConnectionRefusedError:
            time.sleep(0.05)
    raise AssertionError(f"nothing listens on {address}")


def connected():
    """Returns both ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        return near, server.accept()[0]


class Vanished(socket.socket):
    """A connection to a machine that has disappeared, after the time-out."""

    def __init__(self, end):
        super().__init__(fileno=end.detach())

    def recv_into(self, *arguments):
        raise TimeoutError(110, "Connection timed out")

    def recv(self, *arguments):
        raise OSError(113, "No route to host")


def test_messages_that_arrive_together_are_read_one_by_one():
    near, far = connected()
    with far:
        link = Link(near)
        far.sendall(b'{"values": [1]}\n{"ended": 2}\n[')
        assert link.receive() == {"values": [1]}
        assert link.receive() == {"ended": 2}
        far.sendall(b'"later"]\n{"cut o')
        assert link.receive() == ["later"]
    assert link.receive() is None and link.is_closed()
    link.close()


def test_a_connection_to_a_machine_that_disappears_is_closed():
    near, far = connected()
    link = Link(near)
    for name, value in (("KEEPIDLE", 20), ("KEEPINTVL", 10), ("USER_TIMEOUT", 50000)):
        option = getattr(socket, f"TCP_{name}", None)
        if option is not None:
            assert near.getsockopt(socket.IPPROTO_TCP, option) == value
    assert near.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert not link.is_closed()
    link.close()
    far.close()
    near, far = connected()
    link = Link(Vanished(near))
    far.sendall(b"{}\n")
    while not link.is_closed():  # It arrives soon.
        time.sleep(0.01)
    assert link.receive() is None
    far.close()
    link.close()


def test_all_notice_a_machine_that_disappears():
    addresses = free_addresses(3)
    gone = threading.Event()

    def meet(rank):
        with Rendezvous(addresses, rank, seconds=20) as rendezvous:
            rendezvous.exchange("begin")
            if rank == 1:
                gone.wait(20)
                return None
            if rank == 0:
                link = rendezvous._links[1]
                rendezvous._links[1] = Link(Vanished(link._connection))
            try:
                return rendezvous.exchange("continue")
            finally:
                gone.set()

    first, _, third = in_parallel([lambda rank=rank: meet(rank) for rank in range(3)])
    for error in (first, third):
        assert isinstance(error, InputError)
        assert f"worker 1 ({addresses[1]}) ended before" in str(error)


def has_ipv6():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return socket.has_dualstack_ipv6()


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_addresses_of_both_kinds():
    by_v4 = free_addresses(3)
    by_v6 = [address.replace("127.0.0.1", "[::1]") for address in by_v4]
    results = in_parallel(
        [
            lambda: worker(0, by_v6),
            lambda: worker(1, by_v6),
            lambda: worker(2, by_v4),
        ]
    )
    assert results == [[0, 1, 2]] * 3


def test_exchange_returns_the_values_of_all():
    addresses = free_addresses(3)

    def meet(rank):
        time.sleep((2 - rank) / 10)  # The first arrives last.
        with Rendezvous(addresses, rank, seconds=20) as rendezvous:
            first = rendezvous.exchange([rank, "ä"])
            with rendezvous.watchdog():
                pass
            return first, rendezvous.exchange({"rank": rank})

    results = in_parallel([lambda rank=rank: meet(rank) for rank in range(3)])
    assert (
        results
        == [([[0, "ä"], [1, "ä"], [2, "ä"]], [{"rank": 0}, {"rank": 1}, {"rank": 2}])]
        * 3
    )


@pytest.mark.parametrize("addresses", [[], ["nowhere.invalid:1"]])
def test_one_worker_does_not_wait(addresses):
    with Rendezvous(addresses, 0, seconds=0) as rendezvous, rendezvous.watchdog():
        assert rendezvous.exchange({"a": 1}) == [{"a": 1}]


def test_a_worker_that_never_arrives():
    addresses = free_addresses(3)

    def meet(rank):
        with Rendezvous(addresses, rank, seconds=1.5) as rendezvous:
            return rendezvous.exchange(rank)

    started = time.monotonic()
    first, second = map(str, in_parallel([lambda: meet(0), lambda: meet(1)]))
    assert time.monotonic() - started < 5
    assert f"worker 2 ({addresses[2]}) did not connect within 1.5 s" in first
    assert "worker 1" not in first
    assert f"worker 0 ({addresses[0]}) ended" in second


def test_a_first_worker_that_never_arrives():
    (address, other) = free_addresses(2)
    with (
        pytest.raises(InputError, match=r"worker 0 \(.*\) did not answer within 1 s"),
        Rendezvous([address, other], 1, seconds=1),
    ):
        pass


@pytest.mark.parametrize("rank", [0, 1])
def test_a_port_that_is_in_use(rank):
    addresses = free_addresses(2)
    port = int(addresses[rank].split(":")[1])
    with socket.create_server(("", port)):
        ranks = range(rank + 1)
        errors = in_parallel(
            [lambda each=each: worker(each, addresses) for each in ranks]
        )
    words = f"worker {rank} ({addresses[rank]}): cannot listen on port {port} ("
    assert str(errors[rank]).startswith(words) and isinstance(errors[rank], InputError)
    if rank:
        assert f"worker 1 ({addresses[1]}) ended" in str(errors[0])


def test_a_worker_of_another_list_is_told_why_it_is_refused():
    *addresses, other = free_addresses(4)
    begun = f"worker 0 ({addresses[0]}) refused it: "
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(worker, 0, addresses)
        with pytest.raises(InputError) as refused:
            worker(1, [addresses[0], other])
        assert begun + "expected one of 3 workers, got one of 2; all" in str(
            refused.value
        )
        with connect(addresses[0]) as stray:
            stray.sendall(b'{"train-superbai": 3, "workers": 3}\n')
            (text,) = json.loads(stray.makefile().readline()).values()
            assert text == "expected a worker of 1 to 2, got worker 3"
        with connect(addresses[0]) as same:
            same.sendall(b'{"train-superbai": 1, "workers": 3}\n')
            with pytest.raises(InputError) as refused:
                worker(1, addresses)
        assert begun + "got worker 1 twice; all" in str(refused.value)
        # That connection is closed, so another worker may replace it.
        second, third = (pool.submit(worker, rank, addresses) for rank in (1, 2))
        assert first.result() == second.result() == third.result() == [0, 1, 2]


def test_the_first_worker_reports_whom_it_refused():
    near, far = connected()
    far.sendall(b'{"train-superbai": 1, "workers": 2}\n')

    class Server:
        arriving = [(near, None)]

        def settimeout(self, seconds):
            pass

        def accept(self):
            if not self.arriving:
                raise TimeoutError
            return self.arriving.pop()

    with pytest.raises(InputError, match="Refused: expected one of 3 .* one of 2.$"):
        Rendezvous(["a:1", "b:2", "c:3"], 0)._accept_all(Server(), 0)
    far.close()


@pytest.mark.parametrize("ending", [1, 2])
def test_all_are_told_who_ended(ending):
    addresses = free_addresses(3)

    def meet(rank):
        with Rendezvous(addresses, rank, seconds=20) as rendezvous:
            rendezvous.exchange("begin")
            if rank == ending:
                raise InputError("refused")
            return rendezvous.exchange("continue")

    errors = in_parallel([lambda rank=rank: meet(rank) for rank in range(3)])
    assert str(errors.pop(ending)) == "refused"
    for error in errors:
        assert isinstance(error, InputError)
        assert f"worker {ending} ({addresses[ending]}) ended" in str(error)


@pytest.mark.parametrize(
    "sent", [b"", b"GET / HTTP/1.1\r\n\r\n", b"[]\n", b"[" * 10**5, b'{"workers": 2}\n']
)
def test_strangers_are_disconnected(sent):
    addresses = free_addresses(2)

    def stranger():
        with connect(addresses[0]) as link:
            gone.set()
            link.sendall(sent)
            link.shutdown(socket.SHUT_WR)
            return link.recv(10)

    def meet(rank):
        gone.wait(10)
        return worker(rank, addresses)

    gone = threading.Event()
    results = in_parallel([stranger, lambda: worker(0, addresses), lambda: meet(1)])
    assert results[1:] == [[0, 1], [0, 1]]
    # It receives nothing. If it was still sending, its own end fails too.
    assert results[0] == b"" or isinstance(results[0], OSError)


# Waits in C for a lock that it holds, so that no Python thread or signal handler can
# run; or waits in Python for a line, and fails.
CONNECTS = """
    import ctypes
    import signal
    import sys
    import time
    from yolov3_tf2.training.workers.rendezvous import Rendezvous

    ending, seconds, rank, *addresses = sys.argv[1:]

    def stop(number, frame):
        if ending == rank:  # Another may receive it before it waits.
            sys.exit(128 + number)

    signal.signal(signal.SIGTERM, stop)
    with Rendezvous(addresses, int(rank), seconds=20) as rendezvous:
        rendezvous.exchange("begin")
        with rendezvous.watchdog(float(seconds)):
            print("connects", flush=True)
            if ending == rank:
                sys.stdin.readline()
                raise ValueError("failed")
            libc, lock = ctypes.PyDLL(None), ctypes.create_string_buffer(256)
            libc.pthread_mutex_init(lock, None)
            libc.pthread_mutex_lock(lock)
            libc.pthread_mutex_lock(lock)
"""


def connecting_worker(rank, addresses, seconds=60, ending=None):
    """Starts a worker that meets the others; with rank `ending` it waits for a line."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(CONNECTS), str(ending), str(seconds)]
        + [str(rank), *addresses],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    "ending, how",
    [
        (0, "is killed"),
        (1, "is killed"),
        (2, "is killed"),
        (0, "is stopped"),
        (1, "fails"),
    ],
)
def test_a_worker_that_ends_while_all_connect(ending, how):
    addresses = free_addresses(3)
    ends = None if how == "is killed" else ending
    workers = [connecting_worker(rank, addresses, ending=ends) for rank in range(3)]
    for worker in workers:
        assert worker.stdout.readline() == "connects\n"
    if how == "is killed":
        workers[ending].kill()
    elif how == "is stopped":
        workers[ending].send_signal(signal.SIGTERM)
    else:
        workers[ending].stdin.write("\n")
        workers[ending].stdin.flush()
    printed = [worker.communicate(timeout=50)[1] for worker in workers]
    # A worker that can end by itself does.
    status = {"is killed": -9, "fails": 1, "is stopped": 128 + 15}[how]
    assert workers[ending].returncode == status
    assert "stopped by" not in printed[ending]
    del printed[ending], workers[ending]
    for worker, stderr in zip(workers, printed, strict=True):
        assert worker.returncode == -9
        assert stderr.startswith("error: worker") and "ended before" in stderr
    # Worker 0, to which all others are connected, knows which one it was.
    if ending:
        assert f"worker {ending} ({addresses[ending]}) ended" in printed[0]


def test_a_worker_that_is_stopped_while_no_python_runs():
    addresses = free_addresses(2)
    workers = [connecting_worker(rank, addresses) for rank in range(2)]
    for worker in workers:
        assert worker.stdout.readline() == "connects\n"
    workers[1].send_signal(signal.SIGTERM)
    printed = [worker.communicate(timeout=50)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [-9, -9]
    assert printed[1] == "stopped by SIGTERM\n"
    assert f"worker 1 ({addresses[1]}) ended" in printed[0]


def test_workers_that_cannot_connect():
    addresses = free_addresses(2)
    workers = [connecting_worker(rank, addresses, seconds=1) for rank in range(2)]
    printed = [worker.communicate(timeout=20)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [-9, -9]
    assert any(
        "TensorFlow did not connect the 2 workers within 1.0 s" in stderr
        and all(address in stderr for address in addresses)
        for stderr in printed
    )
