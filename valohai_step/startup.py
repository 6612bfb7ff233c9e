"""Imported first by each script: Ctrl-C ends it without a traceback while it starts.

The other imports take up to a second. Nothing is written until they are done, so there
is nothing to clean up; `runtime.exit_when_stopped` replaces this handler.
"""

import os
import signal
import sys


def _exit(number, frame):
    os.write(2, f"stopped by {signal.Signals(number).name}\n".encode())
    os._exit(128 + number)


def _is_program():
    """Whether a script of this project is what runs, and not one that imports it."""
    script = getattr(sys.modules["__main__"], "__file__", None) or ""
    folder = os.path.dirname(os.path.realpath(script))  # noqa: PTH120
    root = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))  # noqa: PTH120
    return folder == root


# A program in the background of a shell ignores the signal, and keeps ignoring it.
if _is_program() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _exit)
