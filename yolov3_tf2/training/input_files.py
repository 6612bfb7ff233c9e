"""The TFRecord files of a training run, of which each worker reads its share."""

from collections import Counter

from absl import logging

from yolov3_tf2.data import counting, records
from yolov3_tf2.data.contents import join_contents
from yolov3_tf2.data.record_files import RecordFiles
from yolov3_tf2.errors import InputError
from yolov3_tf2.evaluation import coco
from yolov3_tf2.training.workers import collective

_KINDS = {
    "train": "training images",
    "validation": "validation images",
    "test": "test images",
}


def open_records(paths, name, class_names, share):
    """Opens the TFRecord files of an input and checks them.

    Args:
        paths: list of `pathlib.Path`.
        name: name of the input, for errors.
        class_names: list of strings.
        share: the `record_files.Share` of this worker.

    Returns:
        A `record_files.RecordFiles`.

    Raises:
        InputError: a file is damaged or has other classes, or there are fewer images
            than workers.
    """
    files = RecordFiles(paths, share)
    for path in paths:
        records.check_first_record(path, class_names)
    if not files.total:
        raise InputError(
            f"input '{name}': no images in {', '.join(map(str, paths))}; expected the "
            "TFRecord files of convert_superbai.py."
        )
    if files.total < share.count:
        raise InputError(
            f"input '{name}': expected at least {share.count} images, one for each "
            f"worker, got {files.total}; train on fewer machines."
        )
    return files


def open_splits(paths, class_names, share):
    """Opens the TFRecord files of all splits.

    Args:
        paths: dict from `train`, `validation` and `test` to a list of `pathlib.Path`.
            Those for validation may be none, or have no records: convert_superbai.py
            writes such a file for a split without images.
        class_names, share: see `open_records`.

    Returns:
        A dict from the splits with images to `record_files.RecordFiles`.
    """
    files = {}
    for split in ("train", "validation", "test"):
        if split == "validation" and not RecordFiles(paths[split]).total:
            logging.info(
                "no validation images: the best epoch is chosen by its AP on the test "
                "images, so that AP is a little too good"
            )
        else:
            files[split] = open_records(paths[split], split, class_names, share)
    return files


def describe_splits(files):
    """Returns the numbers of images of the result of `open_splits` in words."""
    return ", ".join(f"{each.total} {_KINDS[split]}" for split, each in files.items())


def measure_contents(files, class_names, strategy):
    """Measures the images and boxes in the records of all workers.

    Args:
        files: the `record_files.RecordFiles` of this worker.
        class_names: list of strings.
        strategy: the `tf.distribute.Strategy` of all workers.

    Returns:
        The `contents.Contents`, in the order of the files.
    """
    own = counting.measure_contents(files, class_names)
    return join_contents(collective.gather(strategy, own))


def choose_max_boxes(contents):
    """Returns how many detections of an image an evaluation keeps; logs unusual ones.

    Args:
        contents: dict from split to `contents.Contents`.
    """
    most = max(each.max_boxes for each in contents.values())
    limit = coco.detection_limit(most)
    if limit > coco.COCO_MAX_BOXES:
        logging.info(
            "an image has %d boxes: the evaluation keeps %d detections per image "
            "instead of COCO's %d",
            *(most, limit, coco.COCO_MAX_BOXES),
        )
    return limit


def choose_gray_range(gray_ranges):
    """Returns the gray range of the 16-bit images of a training run; None without any.

    Warns if they were scaled in different ways, and returns the way of most of them.

    Args:
        gray_ranges: `[images, 2]` (black, white), of all images of 16 bits.
    """
    counts = Counter(map(tuple, gray_ranges.tolist()))
    if not counts:
        return None
    gray_range = max(counts, key=lambda each: (counts[each], each))
    if len(counts) > 1:
        listed = ", ".join(f"{n} by {b} to {w}" for (b, w), n in counts.most_common(5))
        logging.warning(
            "16-bit images were scaled to 8 bits in different ways, by several runs of "
            "convert_superbai.py (%s): a grey level does not mean the same in all of "
            "them. Detection will scale by %d to %d",
            listed,
            *gray_range,
        )
    return gray_range
