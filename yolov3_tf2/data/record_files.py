"""TFRecord files as one list of records, of which each worker reads its share."""

import os
from typing import NamedTuple

import tensorflow as tf

from yolov3_tf2.data import records

# Limits of the buffer of a shuffle. It holds encoded images, of some 100 kB, and not
# decoded ones, of 2 MB.
_SHUFFLE_IMAGES = 2048
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

    All workers count the records of all files, but each one reads only the files that
    its share lies in. The datasets contain pairs: the number of a record, which is its
    index in all files, and its bytes.

    Attributes:
        paths: list of the files.
        total: number of records in all files.
    """

    def __init__(self, paths, share=WHOLE):
        """Counts the records.

        Raises:
            InputError: a file is not a TFRecord file, or is cut off.
        """
        counts = [records.count_records(path) for path in paths]
        self.paths, self.total = list(paths), sum(counts)
        self._share = share
        first, end = (
            self.total * index // share.count
            for index in (share.index, share.index + 1)
        )
        self._num_own = end - first
        size = sum(path.stat().st_size for path in paths)
        self._mean_bytes = size / max(self.total, 1)
        # For each file of the share: path, number of the first record to read, records
        # to skip before it, records to read.
        self._parts, start = [], 0
        for path, count in zip(paths, counts, strict=True):
            low, high = max(first, start), min(end, start + count)
            if low < high:
                self._parts.append((str(path), low, low - start, high - low))
            start += count

    def steps(self, batch_size):
        """Returns the number of batches in a pass, the same for all workers."""
        return -(-self.total // (self._share.count * batch_size))

    @property
    def own_numbers(self):
        """The numbers of the records of this share, a range."""
        first = self._parts[0][1] if self._parts else 0
        return range(first, first + self._num_own)

    def locate(self, number):
        """Returns the path of the file of a record of this share, and its index there.

        Args:
            number: the number of the record.
        """
        for path, first, num_skipped, count in self._parts:
            if first <= number < first + count:
                return path, num_skipped + number - first
        raise IndexError(f"record {number} is not among {self.own_numbers}")

    def read(self, number):
        """Returns the bytes of one record of this share, a string tensor."""
        path, index = self.locate(number)
        return next(iter(tf.data.TFRecordDataset(path).skip(index).take(1)))

    def in_order(self):
        """Returns a dataset of the records, file after file."""
        return tf.data.Dataset.from_tensor_slices(self._columns()).flat_map(self._read)

    def interleaved(self, seed):
        """Returns a dataset that reads several files in turn, in random order.

        Consecutive images of an export are often alike, and the buffer of a shuffle is
        small compared to a large data set.

        Args:
            seed: `[2]` integers, the order of the files.
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
        """Returns how many records to repeat so that every worker has full batches.

        Args:
            batch_size: images per batch.
            fill_last_batch: whether to fill it if there is only one worker, too.
        """
        if not (fill_last_batch or self._share.count > 1):
            return 0
        return self.steps(batch_size) * batch_size - self._num_own

    def shuffle_buffer(self):
        """Returns the number of records in the buffer of a shuffle."""
        fit_in_memory = int(_SHUFFLE_BYTES / max(self._mean_bytes, 1))
        return max(1, min(self._num_own, _SHUFFLE_IMAGES, fit_in_memory))

    def _columns(self):
        paths, *numbers = zip(*self._parts, strict=True) if self._parts else [()] * 4
        return (
            tf.constant(paths, tf.string),
            *(tf.constant(column, tf.int64) for column in numbers),
        )

    def _read(self, path, first, num_skipped, count):
        rows = tf.data.TFRecordDataset(path).skip(num_skipped).take(count).enumerate()
        return rows.map(lambda index, row: (first + index, row))
