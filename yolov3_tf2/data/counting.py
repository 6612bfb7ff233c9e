"""Measures the contents of TFRecord files: their boxes, and which images are equal."""

import numpy as np
import tensorflow as tf

from yolov3_tf2.data import records
from yolov3_tf2.data.contents import Contents, join_contents
from yolov3_tf2.data.dataset import Batches, build_options, iterate
from yolov3_tf2.data.examples import build_label_table
from yolov3_tf2.data.unreadable import UnreadableImages

# Records contain whole images: larger batches use more memory on a machine with many
# cores, and are not faster.
_BATCH = 8
_PARALLEL = 4
_PREFETCH = 2


@tf.autograph.experimental.do_not_convert
def measure_contents(files, class_names):
    """Returns the `contents.Contents` of records, without decoding images.

    The records are read for this alone, which takes 3 s per GB (10,000 images of
    100 kB) on two cores. Neither the records of older versions of this project nor
    those of other tools come with counts.

    Boxes of unknown classes are left out; the datasets of `dataset.py` refuse them.

    Args:
        files: a `record_files.RecordFiles`; of a share, only its records are measured.
        class_names: list of strings, which the labels index.

    Raises:
        InputError: a record is damaged.
    """
    table = build_label_table(class_names)

    def parse(_, rows):
        batch = records.parse_contents(rows)
        return {**batch, "labels": table.lookup(batch.pop("class_names"))}

    dataset = (
        files.in_order()
        .batch(_BATCH)
        .map(parse, _PARALLEL)
        .prefetch(_PREFETCH)
        .with_options(build_options())
    )
    # Names a damaged record.
    batches = Batches(lambda _: dataset, files, UnreadableImages(class_names))
    return join_contents(map(_batch_contents, iterate(batches)))


def _batch_contents(batch):
    batch = {name: values.numpy() for name, values in batch.items()}
    is_known = batch["labels"] >= 0
    image_of_box = np.repeat(np.arange(len(batch["num_boxes"])), batch["num_boxes"])
    return Contents(
        [name.decode("utf-8", "replace") for name in batch["source_id"]],
        batch["hash"].astype("uint64"),
        np.bincount(image_of_box[is_known], minlength=len(batch["num_boxes"])),
        batch["labels"][is_known].astype("int64"),
        batch["sizes"][is_known],
        batch["gray_ranges"],
    )
