"""A watchdog: a process beside a worker that ends it while no Python runs in it.

    python -m yolov3_tf2.training.workers.watch PROCESS SECONDS TIMEOUT_MESSAGE MESSAGES

It kills the process of id PROCESS after SECONDS and prints TIMEOUT_MESSAGE. MESSAGES is
a JSON object from the number of an open socket to the message that it prints when it
kills the process because that connection has closed. On its standard input it reads the
signals that the process receives, one byte each. It ends with the process.
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

from yolov3_tf2.training.workers.link import Link

# The time that a process has to stop by itself after a signal.
_STOP_SECONDS = 3
_STOP_SIGNALS = {
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP")
    if hasattr(signal, name)  # Windows has no SIGHUP.
}


@contextmanager
def watchdog(messages, timeout_message, seconds):
    """Kills this process if a connection closes or time runs out within the block.

    The watchdog prints the reason and sends SIGKILL; a shell shows status 137. It also
    acts on signals to stop, until TensorFlow handles them itself, as it does with
    SIGTERM while it connects the workers. From then on only the time limit applies.

    Args:
        messages: dict from a `Link` to the message when it closes.
        timeout_message: the message when the block takes longer than `seconds`.
        seconds: time limit of the block.
    """
    numbers = {link.fileno(): text for link, text in messages.items()}
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, str(os.getpid()), str(seconds)]
        + [timeout_message, json.dumps(numbers)],
        cwd=Path(__file__).parents[3],
        stdin=subprocess.PIPE,
        pass_fds=list(numbers),
        start_new_session=True,  # A terminal signals all processes of its session.
    )
    try:
        with _signals_written_to(process.stdin.fileno()):
            yield
    finally:
        process.kill()
        process.communicate()


@contextmanager
def _signals_written_to(file):
    """Writes the number of each received signal to a file, as one byte.

    Python's C code writes it immediately, even while no Python code runs.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Python allows this in the main thread only.
        return
    os.set_blocking(file, False)
    before = signal.set_wakeup_fd(file)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)


def _watch(process, seconds, timeout_message, messages):
    """Waits until the process ends or has to be killed; the arguments of the program.

    Args:
        process: id of the process.
        seconds: its time limit.
        timeout_message, messages: see the module.
    """
    links = {Link(socket.socket(fileno=int(n))): text for n, text in messages.items()}
    deadline, message = time.monotonic() + seconds, f"error: {timeout_message}"
    stdin = sys.stdin.fileno()
    while True:
        left = max(deadline - time.monotonic(), 0)
        ready, _, _ = select.select([stdin, *links], [], [], left)
        must_end = not ready
        if stdin in ready:
            ready.remove(stdin)
            received = os.read(stdin, 64)
            if not received:  # The watched process has ended.
                return
            stops = [number for number in received if number in _STOP_SIGNALS]
            if stops:
                deadline = min(deadline, time.monotonic() + _STOP_SECONDS)
                message = f"stopped by {signal.Signals(stops[0]).name}"
                links, ready = {}, []
        for link in ready:
            text = links.pop(link)  # A worker that sends a message is connected.
            if link.is_closed():
                must_end, message = True, f"error: {text}"
        if must_end:
            print(message, file=sys.stderr, flush=True)
            os.kill(process, signal.SIGKILL)
            return


if __name__ == "__main__":
    _watch(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3], json.loads(sys.argv[4]))
