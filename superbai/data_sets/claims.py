"""Compares a data set with the counts that it states about itself."""

from absl import logging

from superbai.data_sets.yolo_description import find_data_files, find_yamls
from yolov3_tf2.errors import InputError
from yolov3_tf2.files.json_values import parse_json

# A description is small; the labels themselves may be large.
_MAX_JSON_BYTES = 2**20

# What a count is called, and of what it is: an attribute of `_counts`.
_COUNTS = {
    "num_images": "images",
    "num_annotations": "annotations",
    "num_labels": "annotations",
    "num_categories": "classes",
    "num_classes": "classes",
    "nc": "classes",
}


def check_claims(labels, files):
    """Warns where a JSON or YAML of a data set states other counts than it has.

    Args:
        labels: the `labels.Labels` of the data set.
        files: a `DataSetFiles`.
    """
    counts = {
        # With and without the images that have no label file, and entries or files:
        # what exactly is counted is not known.
        "images": (labels.num_images, len(labels.labelled), len(files.images)),
        "annotations": (labels.num_annotations, labels.num_files),
        "classes": (len(labels.class_names), labels.num_categories),
    }
    for where, key, number in _claims(files):
        kind = _COUNTS[key]
        if number not in counts[kind]:
            logging.warning(
                "%s: %s is %d, but the data set has %d %s: is it whole?",
                where,
                key,
                number,
                counts[kind][0],
                kind,
            )


def _claims(files):
    """Yields the name of a file, a key of `_COUNTS` and a number."""
    for file in files.others:
        if file.ending == ".json":
            try:
                value = parse_json(file.read(_MAX_JSON_BYTES), file.where)
            except InputError:
                continue  # Large, or damaged: whoever needs it says so.
            yield from _counts_of(file, value)
    for file, value in find_yamls(files)[0]:
        yield from _counts_of(file, value)
    for file, settings in find_data_files(files):
        yield from _counts_of(file, {"num_classes": settings.get("classes")})


def _counts_of(file, value):
    if not isinstance(value, dict):
        return
    parts = [value, *(part for part in value.values() if isinstance(part, dict))]
    for part in parts:
        for key in _COUNTS.keys() & part.keys():
            if str(part[key]).isdecimal():
                yield file.where, key, int(part[key])
