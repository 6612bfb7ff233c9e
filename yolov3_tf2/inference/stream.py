"""Decodes images, detects objects and saves results at the same time, bounded.

    with BoundedPool(batch_size) as pool:
        for batch, detections in detect_images(sources, detector, ...):
            pool.submit(save, ...)

`detect_images` decodes images in threads ahead of the network. The caller saves its
results in the threads of a `BoundedPool`. All of them hold a limited number of images
and of pixels, so neither many images nor large ones fill the memory.
"""

import os
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from absl import logging
from PIL import Image

from yolov3_tf2.errors import InputError
from yolov3_tf2.files.images import decode_image, open_image
from yolov3_tf2.inference.detector import NetworkInput
from yolov3_tf2.inference.sources import Source

THREADS = min(os.cpu_count(), 8)

# Each operation of the network leaves some cores idle at its end; the other batch uses
# them.
BATCHES_IN_NETWORK = 2

# A decoded image takes four bytes a pixel, and six more while it is scaled. Besides the
# batches in the network, one more is being drawn or filled.
MAX_BATCH_PIXELS = 50_000_000
# Limit for the images decoded ahead of a batch, and again for those being saved: eight
# images of 12 megapixels.
MAX_WAITING_PIXELS = 100_000_000


class LoadedImage(NamedTuple):
    """A decoded image.

    Attributes:
        source: where it is from.
        rgb: the image itself, upright.
        network_input: what the network sees of it.
        changes: what differs from the file; see `images.DecodedImage`.
    """

    source: Source
    rgb: Image.Image
    network_input: NetworkInput
    changes: tuple[str, ...] = ()

    @property
    def num_pixels(self):
        return self.rgb.width * self.rgb.height


def detect_images(
    sources, detector, *, batch_size, unreadable, stopwatch, gray_range=None
):
    """Yields batches of images with their detections, in the order of the sources.

    While the caller works on one batch, threads run the next two through the network
    and decode the images after them. Delete a batch before you take the next one: its
    images would stay in memory.

    Args:
        sources: iterable of `sources.Source`.
        detector: a `detector.Detector`.
        batch_size: maximum number of images of a batch; fewer if they are very large.
        unreadable: list; a dict with `file_name` and `reason` is appended for each
            image that cannot be read. These are logged and skipped.
        stopwatch: a `Stopwatch` for the time of the network.
        gray_range: the (black, white) of images of 16 bits; None if the model has none:
            then each one's own.

    Yields:
        Pairs of a list of `LoadedImage` and a list of their `detector.Detections`.
    """

    def run_network(batch):
        with stopwatch:
            return batch, detector([loaded.network_input for loaded in batch])

    loaded_images = load_images(sources, detector, batch_size, unreadable, gray_range)
    with BoundedPool(BATCHES_IN_NETWORK, BATCHES_IN_NETWORK) as pool:
        for batch in make_batches(loaded_images, batch_size):
            yield from pool.submit(run_network, batch)
        yield from pool.finish()


def load_images(sources, detector, max_waiting, unreadable, gray_range=None):
    """Yields a `LoadedImage` for each image that can be read.

    Args:
        sources, detector, unreadable, gray_range: see `detect_images`.
        max_waiting: number of images that threads decode ahead.
    """
    decoded = _decode_images(sources, detector, max_waiting, gray_range)
    for source, loaded, error in decoded:
        if error is None:
            yield loaded
        else:
            logging.warning("skipped: %s", error)
            unreadable.append({"file_name": source.name, "reason": str(error)})


def _decode_images(sources, detector, max_waiting, gray_range):
    """Yields triples of a source, its `LoadedImage` and an error; one of them None."""

    def decode(source, encoded, error):
        if error is None:
            try:
                rgb, changes = decode_image(encoded, source.where, gray_range)
                network_input = detector.prepare(np.asarray(rgb))
                return source, LoadedImage(source, rgb, network_input, changes), None
            except InputError as caught:
                error = caught
        return source, None, error

    with BoundedPool(max_waiting) as pool:
        # Read in this thread: a zip is open only until its last source is taken.
        for source in sources:
            encoded, pixels, error = None, 0, None
            try:
                encoded = source.read()
                header = open_image(encoded, source.where)
                pixels = header.width * header.height
            except (InputError, OSError) as caught:
                error = caught
            yield from pool.submit(decode, source, encoded, error, pixels=pixels)
        yield from pool.finish()


def make_batches(loaded_images, batch_size):
    """Yields lists of at most `batch_size` images, fewer if they are very large."""
    batch, pixels = [], 0
    for loaded in loaded_images:
        batch.append(loaded)
        pixels += loaded.num_pixels
        if len(batch) == batch_size or pixels > MAX_BATCH_PIXELS:
            yield batch
            batch, pixels = [], 0
    if batch:
        yield batch


class BoundedPool:
    """A thread pool that holds a limited number of tasks and of their pixels.

    Leaving its `with` block waits for all tasks, and raises what one of them raised.
    """

    def __init__(self, max_tasks, threads=THREADS):
        """Starts the pool.

        Args:
            max_tasks: number of tasks that may be waiting or running; at least the
                number of threads is allowed.
            threads: number of threads.
        """
        self._max_tasks = max(max_tasks, threads)
        self._pool = ThreadPoolExecutor(threads)
        self._tasks, self._pixels = deque(), 0

    def __enter__(self):
        return self

    def __exit__(self, kind, *error):
        with self._pool:
            if kind is None:
                for _ in self.finish():
                    pass

    def submit(self, function, *args, pixels=0, **options):
        """Adds a task; waits for the oldest ones while there are too many.

        Args:
            function, *args, **options: what a thread calls.
            pixels: number of pixels that the task holds in memory.

        Returns:
            List of the results of the tasks waited for, in the order of submission.

        Raises:
            Exception: what a task waited for has raised.
        """
        future = self._pool.submit(function, *args, **options)
        self._tasks.append((future, pixels))
        self._pixels += pixels
        return list(self._take_results(self._max_tasks))

    def finish(self):
        """Yields the results of the remaining tasks; raises what one has raised."""
        return self._take_results(0)

    def _take_results(self, max_tasks):
        """Removes the oldest tasks until `max_tasks` are left, or fewer large ones."""
        while len(self._tasks) > max_tasks or self._pixels > MAX_WAITING_PIXELS:
            future, pixels = self._tasks.popleft()
            self._pixels -= pixels
            yield future.result()


class Stopwatch:
    """Adds up the seconds in which any thread is in its `with` block, as `total`."""

    def __init__(self):
        self.total = 0.0
        self._threads, self._lock = 0, threading.Lock()

    def __enter__(self):
        with self._lock:
            if not self._threads:
                self._start = time.perf_counter()
            self._threads += 1

    def __exit__(self, *error):
        with self._lock:
            self._threads -= 1
            if not self._threads:
                self.total += time.perf_counter() - self._start
