"""A process beside a worker, which ends it while no Python runs in it.

    python -m yolov3_tf2.training.workers.watch PROCESS SECONDS LATE MESSAGES

PROCESS is the number of the process that is ended after SECONDS, with the message LATE;
MESSAGES is a JSON object from the number of an open socket to the message with which it
is ended when that connection does. On its standard input come the signals that the
process receives, a byte each; it ends with the process.
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

# For what a process does itself when it is told to stop, if it can.
_STOPPING_SECONDS = 3
_STOPPING = {
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP")
    if hasattr(signal, name)  # Windows has no SIGHUP.
}


@contextmanager
def watched(messages, late, seconds):
    """Ends this process, from outside, where something ends it within the block.

    It prints why, and kills: the status is 137, as a shell counts it. A signal to stop
    is heard until TensorFlow takes it for itself, as it does SIGTERM while it connects
    the workers: then the time alone is bounded.

    Args:
        messages: dict from a `Link` to what is said where it ends.
        late: what is said where the block takes longer than `seconds`.
        seconds: the longest that it may take.
    """
    numbers = {link.fileno(): text for link, text in messages.items()}
    watch = subprocess.Popen(
        [sys.executable, "-m", __name__, str(os.getpid()), str(seconds), late]
        + [json.dumps(numbers)],
        cwd=Path(__file__).parents[3],
        stdin=subprocess.PIPE,
        pass_fds=list(numbers),
        start_new_session=True,  # A terminal's signals are for all of its session.
    )
    try:
        with _signals_written_to(watch.stdin.fileno()):
            yield
    finally:
        watch.kill()
        watch.communicate()


@contextmanager
def _signals_written_to(file):
    """Python's handlers in C do so at once, those in Python when some Python runs."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python refuses: signals are the main thread's.
        return
    os.set_blocking(file, False)
    before = signal.set_wakeup_fd(file)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)


def _watch(process, seconds, late, messages):
    links = {Link(socket.socket(fileno=int(n))): text for n, text in messages.items()}
    deadline, message = time.monotonic() + seconds, f"error: {late}"
    stdin = sys.stdin.fileno()
    while True:
        left = max(deadline - time.monotonic(), 0)
        ready, _, _ = select.select([stdin, *links], [], [], left)
        is_over = not ready
        if stdin in ready:
            ready.remove(stdin)
            received = os.read(stdin, 64)
            if not received:  # The process that is watched has ended.
                return
            stopping = [number for number in received if number in _STOPPING]
            if stopping:
                deadline = min(deadline, time.monotonic() + _STOPPING_SECONDS)
                message = f"stopped by {signal.Signals(stopping[0]).name}"
                links, ready = {}, []
        for link in ready:
            text = links.pop(link)  # One that has something to say is through.
            if link.has_ended():
                is_over, message = True, f"error: {text}"
        if is_over:
            print(message, file=sys.stderr, flush=True)
            os.kill(process, signal.SIGKILL)
            return


if __name__ == "__main__":
    _watch(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3], json.loads(sys.argv[4]))
