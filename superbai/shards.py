"""Writes the pictures of an export to TFRecord files, on several processes."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf

from superbai.export import Export, Item, Record
from yolov3_tf2.data import records
from yolov3_tf2.errors import InputError, writing

# A process starts in a moment, but where there is little to do even that is too long.
_PICTURES_A_PROCESS = 250
_REPORT_SECONDS = 0.5

# What forked processes have of the one that started them: `_Job`.
_job = None


class Shard(NamedTuple):
    """A file of records to be written."""

    split: str
    path: Path
    items: Sequence[Item]


class Written(NamedTuple):
    """What a shard has become.

    Attributes:
        split: that of the shard.
        counts: Counter of `pictures`, and of boxes by ("box", label).
        shown: list of the records that were asked for; the first one, where they were
            none of the shard's.
        notes: the result of `Export.take_notes`.
    """

    split: str
    counts: Counter
    shown: list[Record]
    notes: tuple


class _Job(NamedTuple):
    export: Export
    shards: list[Shard]
    shown: set[str]
    done: object  # A shared counter of pictures.


def plan_shards(by_split, folder, images_per_shard):
    """Parts the items of each split into shards of about equal size.

    Args:
        by_split: a dict of sequences of `export.Item`.
        folder: where the folders of the splits will lie.
        images_per_shard: the most items of a shard.

    Returns:
        A list of `Shard`.
    """
    shards = []
    for split, items in by_split.items():
        number = -(-len(items) // images_per_shard)
        ends = [len(items) * index // number for index in range(number + 1)]
        for index, (start, end) in enumerate(zip(ends, ends[1:], strict=False)):
            name = f"{split}-{index:05d}-of-{number:05d}.tfrecord"
            shards.append(Shard(split, folder / split / name, items[start:end]))
    return shards


def write_shards(export, shards, shown, bar, processes=None):
    """Writes shards, in as many processes as there are cores and work for them.

    Args:
        export: the open `Export` that their items are of; what it notes of them is
            added to it.
        shards: the result of `plan`; their folders are made.
        shown: set of the `source_id` of records to return.
        bar: a progress bar, with a method `update`.
        processes: how many at most; the number of cores if None.

    Returns:
        A list of `Written`, in the order of the shards.

    Raises:
        InputError: a label or picture cannot be used.
    """
    for shard in shards:
        shard.path.parent.mkdir(exist_ok=True)
    total = sum(len(shard.items) for shard in shards)
    cores = os.cpu_count() if processes is None else processes
    number = min(cores, len(shards), -(-total // _PICTURES_A_PROCESS))
    # Elsewhere a fork is not there, or not safe with what the system has loaded.
    if number < 2 or sys.platform != "linux":
        written = [_write_shard(export, shard, shown, bar.update) for shard in shards]
    else:
        written = _write_in_parallel(export, shards, shown, bar, number)
    for result in written:
        export.add_notes(result.notes)
    return written


def _write_in_parallel(export, shards, shown, bar, number):
    global _job
    # Forked, so that they have the export and TensorFlow; the latter has not computed
    # anything so far, and so has no threads that a fork would lose.
    context = multiprocessing.get_context("fork")
    done = context.Value("q", 0)
    _job = _Job(export, shards, shown, done)
    executor = ProcessPoolExecutor(number, context, _start_process, (os.getpid(),))
    try:
        futures = [executor.submit(_write_numbered, n) for n in range(len(shards))]
        left = set(futures)
        while left:
            finished, left = wait(left, _REPORT_SECONDS, FIRST_COMPLETED)
            bar.update(done.value - bar.n)
            for future in finished:
                future.result()  # Raises what the process has raised.
        return [future.result() for future in futures]
    except BrokenProcessPool as error:
        raise OSError(
            "a process that writes records was killed; is there too little memory?"
        ) from error
    except BaseException:
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    finally:
        executor.shutdown(cancel_futures=True)
        _job = None


def _start_process(parent):
    # Ctrl-C reaches all processes of a terminal; the first one tells the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    _job.export.reopen()


def _end_with(parent):
    """Ends this process when the one that started it is gone, be it killed."""
    while os.getppid() == parent:
        time.sleep(_REPORT_SECONDS)
    os._exit(1)


def _write_numbered(number):
    def count(pictures):
        with _job.done.get_lock():
            _job.done.value += pictures

    _job.export.take_notes()  # Of the process that started this one.
    return _write_shard(_job.export, _job.shards[number], _job.shown, count)


def _write_shard(export, shard, shown, count):
    """Writes one shard; calls `count` with 1 for each item."""
    counts, kept, first = Counter(), [], []
    with writing(shard.path), tf.io.TFRecordWriter(str(shard.path)) as writer:
        for item in shard.items:
            record = export.read(item)
            count(1)
            if record is None:
                continue
            writer.write(records.serialize_example(record, export.class_names))
            counts.update(["pictures", *(("box", label) for label in record.labels)])
            first = first or [record]
            if record.source_id in shown:
                kept.append(record)
    return Written(shard.split, counts, kept or first, export.take_notes())


def check_splits(written, shards, name):
    """Raises an `InputError` where a split has items, but no record."""
    for split in {shard.split for shard in shards}:
        if not sum(w.counts["pictures"] for w in written if w.split == split):
            number = sum(len(shard.items) for shard in shards if shard.split == split)
            raise InputError(
                f"{name}: no pictures left for {split}: none of its {number} has an "
                "object; submit their labels in the Suite."
            )
