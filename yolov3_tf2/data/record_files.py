"""TFRecord files as one list of records, of which each worker reads its share."""

import os
from typing import NamedTuple

import tensorflow as tf

from yolov3_tf2.data import records

# Encoded pictures, some 100 kB each, and not decoded ones of 2 MB; fewer of large ones.
_SHUFFLE_PICTURES = 2048
_SHUFFLE_BYTES = 512 * 2**20

_PARALLEL = os.cpu_count()
_FILES_IN_TURN = 16


class Share(NamedTuple):
    """The part of a data set that one of several workers reads.

    Records are cut into `count` even parts, of which `index` is one.
    """

    index: int = 0
    count: int = 1


WHOLE = Share()


class RecordFiles:
    """The records of one worker's share of TFRecord files.

    All workers count the records of all files; a worker reads those of the files that
    its part lies in. The datasets are of pairs of a record's place in all files, and
    its bytes.

    Attributes:
        paths: list of the files.
        total: number of records in all of them.
    """

    def __init__(self, paths, share=WHOLE):
        """Counts the records.

        Raises:
            InputError: a file is no TFRecord file, or is cut off.
        """
        counts = [records.count_records(path) for path in paths]
        self.paths, self.total = list(paths), sum(counts)
        self._share = share
        first, last = (
            self.total * index // share.count
            for index in (share.index, share.index + 1)
        )
        self._num_own = last - first
        size = sum(path.stat().st_size for path in paths)
        self._mean_bytes = size / max(self.total, 1)
        # Of each file: its path, the place of its first record that is read, how many
        # are skipped before, and how many are read.
        self._parts, start = [], 0
        for path, count in zip(paths, counts, strict=True):
            low, high = max(first, start), min(last, start + count)
            if low < high:
                self._parts.append((str(path), low, low - start, high - low))
            start += count

    def steps(self, batch_size):
        """The number of batches of a pass, which is the same for all workers."""
        return -(-self.total // (self._share.count * batch_size))

    def in_order(self):
        """The records file after file."""
        return tf.data.Dataset.from_tensor_slices(self._columns()).flat_map(self._read)

    def mixed(self, seed):
        """The records of several files in turn; these are in an order of chance.

        Pictures that lie side by side in an export are often alike, and the buffer of
        a shuffle is small beside a large data set.
        """
        number = len(self._parts)
        order = tf.random.experimental.stateless_shuffle(tf.range(number), seed)
        columns = tuple(tf.gather(column, order) for column in self._columns())
        in_turn = max(1, min(number, _FILES_IN_TURN))
        return tf.data.Dataset.from_tensor_slices(columns).interleave(
            self._read,
            cycle_length=in_turn,
            num_parallel_calls=min(in_turn, _PARALLEL),
            deterministic=True,
        )

    def num_repeated(self, batch_size, fill_last_batch):
        """How many records come twice, so that all batches of all workers are full."""
        if not (fill_last_batch or self._share.count > 1):
            return 0
        return self.steps(batch_size) * batch_size - self._num_own

    def shuffle_buffer(self):
        """The number of records to shuffle among, so many that memory holds them."""
        held = int(_SHUFFLE_BYTES / max(self._mean_bytes, 1))
        return max(1, min(self._num_own, _SHUFFLE_PICTURES, held))

    def _columns(self):
        paths, *numbers = zip(*self._parts, strict=True) if self._parts else [()] * 4
        return (
            tf.constant(paths, tf.string),
            *(tf.constant(column, tf.int64) for column in numbers),
        )

    def _read(self, path, place, skipped, count):
        rows = tf.data.TFRecordDataset(path).skip(skipped).take(count).enumerate()
        return rows.map(lambda number, row: (place + number, row))
