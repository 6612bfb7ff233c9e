"""The TFRecord files of a training run, of which each worker reads its share."""

from yolov3_tf2.data import counting, records
from yolov3_tf2.data.record_files import RecordFiles
from yolov3_tf2.errors import InputError
from yolov3_tf2.training.workers import collective


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


def hold_records(paths):
    """Returns whether there is a record in any of a list of TFRecord files."""
    return any(records.count_records(path) for path in paths)


def most_boxes(files, strategy):
    own = 0
    for _, row in files.in_order():
        own = max(own, int(records.parse_class_names([row]).shape[0]))
    return max(collective.gather(strategy, own))


def count_boxes(files, class_names, strategy):
    """Counts the boxes in the records of all workers.

    Args:
        files: the `record_files.RecordFiles` of this worker.
        class_names: list of strings.
        strategy: the `tf.distribute.Strategy` of all workers.

    Returns:
        A dict from class name to number.
    """
    counts = collective.gather(strategy, counting.count_boxes(files, class_names))
    return dict(zip(class_names, sum(counts).tolist(), strict=True))
