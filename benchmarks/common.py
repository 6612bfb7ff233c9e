"""What the benchmarks share: generated photographs, timing side by side, a table."""

import io
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

WIDTH, HEIGHT, BOXES = 640, 480, 9
CLASSES = ["person", "car"]

# Runs between a benchmark and a step: a process inherits the peak memory of the process
# that starts it, and the benchmark's may be the larger.
_WATCH = """
import resource, subprocess, sys
status = subprocess.call(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(status)
"""


def photographs(number=50, seed=0):
    """Returns JPEGs with the size, the detail and the bytes of COCO photographs."""
    chance = np.random.default_rng(seed)
    encoded = []
    for _ in range(number):
        coarse = chance.integers(0, 255, (HEIGHT // 8, WIDTH // 8, 3), dtype="uint8")
        image = Image.fromarray(coarse).resize(
            (WIDTH, HEIGHT), Image.Resampling.BICUBIC
        )
        noise = chance.normal(0, 16, (HEIGHT, WIDTH, 3))
        values = np.clip(np.asarray(image) + noise, 0, 255).astype("uint8")
        buffer = io.BytesIO()
        Image.fromarray(values).save(buffer, "JPEG", quality=90)
        encoded.append(buffer.getvalue())
    return encoded


def add_export_arguments(parser):
    """Adds `--images` and `--labels` to a command line."""
    hint = "of your own export, instead of generated images"
    parser.add_argument("--images", type=Path, help=f"zip of the images {hint}")
    parser.add_argument("--labels", type=Path, help="zip of the labels of that export")


def own_export(parser, arguments):
    """Returns the paths of `--images` and `--labels`, None where they are not given."""
    given = (arguments.images, arguments.labels)
    if any(given) and not all(given):
        parser.error("--images and --labels belong together")
    return given if all(given) else None


class NoBar:
    """A progress bar that shows nothing."""

    n = 0

    def update(self, number):
        self.n += number


def boxes(chance):
    """Returns random boxes, xyxy in pixels."""
    corners = chance.uniform(0, (WIDTH - 64, HEIGHT - 64), (BOXES, 2))
    sides = chance.uniform(16, 64, (BOXES, 2))
    return np.concatenate([corners, corners + sides], axis=1)


def side_by_side(functions, rounds):
    """Times functions in alternation, so that other load affects all of them alike.

    Args:
        functions: dict from a name to a function without arguments.
        rounds: how often each function is called.

    Returns:
        A dict from name to the median of the seconds.
    """
    seconds = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def run(script, outputs, *arguments):
    """Runs a step; returns its seconds and its peak memory in bytes.

    The peak is that of the step's largest process.
    """
    command = [sys.executable, "-c", _WATCH, sys.executable, REPOSITORY / script]
    start = time.perf_counter()
    with tempfile.TemporaryFile() as log:
        status = subprocess.call(
            list(map(str, [*command, *arguments])),
            env={**os.environ, "VH_OUTPUTS_DIR": str(outputs)},
            stdout=log,
            stderr=log,
        )
        log.seek(0)
        output = log.read().decode()
    if status:
        sys.exit(output)
    return time.perf_counter() - start, int(output.split()[-1]) * 1024


def print_table(title, columns, rows):
    """Prints a Markdown table with the machine in its title."""
    cores = os.cpu_count()
    print(f"\n{title}; {cores} cores, {platform.machine()}, {processor()}\n")
    print("| " + " | ".join(columns) + " |")
    print("|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |")


def processor():
    """Returns the name of the processor."""
    path = Path("/proc/cpuinfo")
    if path.is_file():
        for line in path.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(": ")[2]
    return platform.processor() or "unknown processor"


def write_zip(path, entries):
    """Writes a deflated zip, as the Suite does, from pairs of name and content."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            archive.writestr(name, content)
