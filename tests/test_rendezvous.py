"""Workers that meet, exchange what they are about to do, and notice who has ended."""

import socket
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import REPOSITORY, free_addresses

from yolov3_tf2.errors import InputError
from yolov3_tf2.rendezvous import Rendezvous


def in_parallel(functions):
    """The results of functions that run at once, or the errors that they raise."""
    with ThreadPoolExecutor(len(functions)) as pool:
        futures = [pool.submit(function) for function in functions]
        return [future.exception() or future.result() for future in futures]


def test_all_know_what_each_said():
    addresses = free_addresses(3)

    def worker(rank):
        time.sleep((2 - rank) / 10)  # The first comes last.
        with Rendezvous(addresses, rank, seconds=20) as others:
            first = others.exchange([rank, "ä"])
            with others.watched():
                pass
            return first, others.exchange({"rank": rank})

    found = in_parallel([lambda rank=rank: worker(rank) for rank in range(3)])
    assert (
        found
        == [([[0, "ä"], [1, "ä"], [2, "ä"]], [{"rank": 0}, {"rank": 1}, {"rank": 2}])]
        * 3
    )


@pytest.mark.parametrize("addresses", [[], ["nowhere.invalid:1"]])
def test_one_worker_waits_for_nobody(addresses):
    with Rendezvous(addresses, 0, seconds=0) as others, others.watched():
        assert others.exchange({"a": 1}) == [{"a": 1}]


def test_a_worker_that_never_comes():
    addresses = free_addresses(3)

    def worker(rank):
        with Rendezvous(addresses, rank, seconds=1.5) as others:
            return others.exchange(rank)

    started = time.monotonic()
    first, second = map(str, in_parallel([lambda: worker(0), lambda: worker(1)]))
    assert time.monotonic() - started < 5
    assert f"worker 2 ({addresses[2]}) did not come within 1.5 s" in first
    assert "worker 1" not in first
    assert f"worker 0 ({addresses[0]}) has ended" in second


def test_a_first_worker_that_never_comes():
    (address, other) = free_addresses(2)
    with (
        pytest.raises(InputError, match=r"worker 0 \(.*\) did not answer within 1 s"),
        Rendezvous([address, other], 1, seconds=1),
    ):
        pass


def test_a_port_that_is_taken():
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(InputError, match=f"cannot listen on port {port}"),
            Rendezvous([f"127.0.0.1:{port}", "127.0.0.1:1"], 0, seconds=1),
        ):
            pass


@pytest.mark.parametrize("ending", [1, 2])
def test_all_hear_who_has_ended(ending):
    addresses = free_addresses(3)

    def worker(rank):
        with Rendezvous(addresses, rank, seconds=20) as others:
            others.exchange("begin")
            if rank == ending:
                raise InputError("refused")
            return others.exchange("go on")

    errors = in_parallel([lambda rank=rank: worker(rank) for rank in range(3)])
    assert str(errors.pop(ending)) == "refused"
    for error in errors:
        assert isinstance(error, InputError)
        assert f"worker {ending} ({addresses[ending]}) has ended" in str(error)


@pytest.mark.parametrize(
    "said", [b"", b"GET / HTTP/1.1\r\n\r\n", b"[]\n", b'{"train-superbai": 7}\n']
)
def test_strangers_are_sent_away(said):
    addresses = free_addresses(2)
    port = int(addresses[0].split(":")[1])

    def stranger():
        for _ in range(100):
            try:
                link = socket.create_connection(("127.0.0.1", port))
                break
            except ConnectionRefusedError:
                time.sleep(0.05)
        with link:
            link.sendall(said)
            link.shutdown(socket.SHUT_WR)
            gone.set()
            return link.recv(10)

    def worker(rank):
        if rank:
            gone.wait(10)
        with Rendezvous(addresses, rank, seconds=20) as others:
            return others.exchange(rank)

    gone = threading.Event()
    found = in_parallel([stranger, lambda: worker(0), lambda: worker(1)])
    assert found[1:] == [[0, 1], [0, 1]]
    assert not found[0] or isinstance(found[0], ConnectionError)


# Sleeps in C, where no thread of Python and no handler of a signal can run.
DEAF = """
    import ctypes
    import sys
    from yolov3_tf2.rendezvous import Rendezvous

    with Rendezvous(sys.argv[2:], int(sys.argv[1]), seconds=20) as others:
        others.exchange("begin")
        with others.watched(seconds=30 if len(sys.argv) > 4 else 1):
            print("connects", flush=True)
            ctypes.PyDLL(None).sleep(60)
"""


def deaf_worker(rank, addresses):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(DEAF), str(rank), *addresses],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("killed", [0, 1, 2])
def test_a_worker_that_ends_while_all_connect(killed):
    addresses = free_addresses(3)
    workers = [deaf_worker(rank, addresses) for rank in range(3)]
    for worker in workers:
        assert worker.stdout.readline() == "connects\n"
    started = time.monotonic()
    workers[killed].kill()
    printed = [worker.communicate(timeout=20)[1] for worker in workers]
    assert time.monotonic() - started < 10
    del printed[killed], workers[killed]
    for worker, stderr in zip(workers, printed, strict=True):
        assert worker.returncode == -9
        assert stderr.startswith("error: worker") and "has ended before" in stderr
    # The one that all others are connected to knows which it was.
    if killed:
        assert f"worker {killed} ({addresses[killed]}) has ended" in printed[0]


def test_workers_that_cannot_connect():
    addresses = free_addresses(2)
    workers = [deaf_worker(rank, addresses) for rank in range(2)]
    printed = [worker.communicate(timeout=20)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [-9, -9]
    assert any(
        "have met, but cannot train together: expected them connected in 1" in stderr
        and all(address in stderr for address in addresses)
        for stderr in printed
    )
