"""Where the project and the real data lie, and what several test files start."""

import os
import random
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED = REPOSITORY.parent / "shared"


def free_addresses(number):
    """Addresses on this machine on which nothing listens.

    They are below the ephemeral ports, so no other test and no connection takes one
    before somebody listens there.
    """
    ports = set()
    while len(ports) < number:
        port = random.SystemRandom().randrange(20000, 32000)
        with socket.socket() as free, suppress(OSError):
            free.bind(("127.0.0.1", port))
            ports.add(port)
    return [f"127.0.0.1:{port}" for port in ports]


def start_training(outputs, arguments, **environment):
    """Starts train.py; returns the process."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("VH_")}
    return subprocess.Popen(
        [sys.executable, str(REPOSITORY / "train.py"), *map(str, arguments)],
        cwd=REPOSITORY,
        env={**clean, "VH_OUTPUTS_DIR": str(outputs), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
