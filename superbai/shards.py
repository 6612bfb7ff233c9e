"""Writes the images of an export to TFRecord files, in several processes."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf
from absl import logging

from superbai import export_json
from superbai.export import Export, Item
from superbai.labelled_image import Record
from superbai.notes import Notes
from yolov3_tf2.data import contents, records
from yolov3_tf2.errors import InputError, list_first, writing

# A process starts quickly, but with less work even that takes too long.
_IMAGES_PER_PROCESS = 250
_REPORT_SECONDS = 0.5

# What forked processes inherit from their parent: a `_Job`.
_job = None


class Shard(NamedTuple):
    """A file of records to be written."""

    split: str
    path: Path
    items: list[Item]


class WrittenShard(NamedTuple):
    """The result of writing a shard.

    Attributes:
        split: that of the shard.
        counts: Counter of `images`, and of boxes by ("box", label).
        shown: list of the requested records in the shard; its first record if there is
            none of them.
        notes: `Notes` on its items.
        contents: the `contents.Contents` of its records.
    """

    split: str
    counts: Counter
    shown: list[Record]
    notes: Notes
    contents: contents.Contents


class _Job(NamedTuple):
    export: Export
    shards: list[Shard]
    shown: set[str]
    done: object  # A shared counter of images.


def plan_shards(by_split, folder, images_per_shard):
    """Divides the items of each split into shards of about equal size.

    A split without items has one shard, so that an edge of a pipeline always finds a
    file.

    Args:
        by_split: a dict of lists of `export.Item`.
        folder: where the folders of the splits will be.
        images_per_shard: the most items in a shard.

    Returns:
        A list of `Shard`.
    """
    shards = []
    for split, items in by_split.items():
        number = max(1, -(-len(items) // images_per_shard))
        ends = [len(items) * index // number for index in range(number + 1)]
        for index, (start, end) in enumerate(zip(ends, ends[1:], strict=False)):
            name = f"{split}-{index:05d}-of-{number:05d}.tfrecord"
            shards.append(Shard(split, folder / split / name, items[start:end]))
    return shards


def write_shards(export, shards, shown, bar, processes=None):
    """Writes shards in as many processes as there are cores and work for them.

    Args:
        export: the open `Export` of the items; its notes are added to.
        shards: the result of `plan_shards`; their folders are created.
        shown: set of the `source_id` of records to return.
        bar: a progress bar with a method `update`.
        processes: the most processes; the number of cores if None.

    Returns:
        A list of `WrittenShard` in the order of the shards.

    Labels and images that cannot be used are left out, and noted as unreadable.

    Raises:
        InputError: labels use two classes with the same name.
    """
    for shard in shards:
        shard.path.parent.mkdir(exist_ok=True)
    total = sum(len(shard.items) for shard in shards)
    cores = os.cpu_count() if processes is None else processes
    number = min(cores, len(shards), -(-total // _IMAGES_PER_PROCESS))
    # Other systems have no fork, or one that is not safe with the system's libraries.
    if number < 2 or sys.platform != "linux":
        written = [_write_shard(export, shard, shown, bar.update) for shard in shards]
    else:
        written = _write_in_parallel(export, shards, shown, bar, number)
    for result in written:
        export.notes.add(result.notes)
    export_json.check_repeated_classes(export.notes.repeated, export.name)
    return written


def _write_in_parallel(export, shards, shown, bar, number):
    global _job
    # Forked processes inherit the export and TensorFlow, which has not computed
    # anything yet, so it has no threads that a fork would lose.
    context = multiprocessing.get_context("fork")
    done = context.Value("q", 0)
    _job = _Job(export, shards, shown, done)
    executor = ProcessPoolExecutor(number, context, start_process, (os.getpid(),))
    try:
        futures = [executor.submit(_write_numbered, n) for n in range(len(shards))]
        pending = set(futures)
        while pending:
            finished, pending = wait(pending, _REPORT_SECONDS, FIRST_COMPLETED)
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


def start_process(parent):
    """Prepares a process that was forked to work for its parent."""
    # Ctrl-C reaches all processes of a terminal; the parent ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_exit_with_parent, args=(parent,), daemon=True).start()


def _exit_with_parent(parent):
    """Ends this process when its parent is gone, even if that was killed."""
    while os.getppid() == parent:
        time.sleep(_REPORT_SECONDS)
    os._exit(1)


def _write_numbered(number):
    def count(images):
        with _job.done.get_lock():
            _job.done.value += images

    return _write_shard(_job.export, _job.shards[number], _job.shown, count)


def _write_shard(export, shard, shown, count):
    """Writes one shard; calls `count` with 1 for each item."""
    counts, notes, requested, first, images = Counter(), Notes(), [], [], []
    with writing(shard.path), tf.io.TFRecordWriter(str(shard.path)) as writer:
        for item in shard.items:
            record = _read(export, item, notes)
            count(1)
            if record is None:
                continue
            writer.write(records.serialize_example(record, export.class_names))
            counts.update(["images", *(("box", label) for label in record.labels)])
            images.append(contents.describe_record(record))
            first = first or [record]
            if record.source_id in shown:
                requested.append(record)
    return WrittenShard(
        shard.split,
        counts,
        requested or first,
        notes,
        contents.list_contents(images),
    )


def _read(export, item, notes):
    """Returns the record of an item; None, and notes it, if it cannot be used."""
    try:
        return export.read(item, notes)
    except InputError as error:
        notes.unreadable.append((item.source_id, str(error)))
        return None


def check_unreadable(export, max_number):
    """Counts and logs the images that cannot be used, if they are accepted.

    Args:
        export: the `Export`, all of which was read.
        max_number: the number of such images to accept.

    Raises:
        InputError: there are more.
    """
    notes = export.notes
    number = len(notes.unreadable)
    messages = [f"{image} ({reason.rstrip('.')})" for image, reason in notes.unreadable]
    if number > max_number:
        raise InputError(
            f"{export.name}: {number} of {export.num_labelled} labelled images cannot "
            "be used, as the image or its label cannot be read: "
            f"{list_first(messages)}; replace them and export again, or leave them out "
            f"with --max_unreadable={number}."
        )
    for message in messages:
        logging.warning("left out, cannot be used: %s", message)
    if number:
        notes.left_out["images with an unreadable file or label"] += number


def check_splits(written, shards, name):
    """Raises an `InputError` where a split has items, but no record."""
    for split in {shard.split for shard in shards if shard.items}:
        if not sum(w.counts["images"] for w in written if w.split == split):
            number = sum(len(shard.items) for shard in shards if shard.split == split)
            unreadable = sum(
                len(w.notes.unreadable) for w in written if w.split == split
            )
            reasons = [f"{unreadable} cannot be read"] * bool(unreadable)
            advice = ""
            if unreadable < number:
                rest = number - unreadable
                reasons.append(f"{rest} are not submitted and have no object")
                advice = "submit more labels in the Suite, or "
            raise InputError(
                f"{name}: no images left for {split}: of its {number}, "
                f"{', '.join(reasons)}; {advice}choose other images for '{split}'."
            )
