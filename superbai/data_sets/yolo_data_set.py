"""Reads the labels of a data set in YOLO's format: a text file for each image."""

from collections import Counter

from superbai.data_sets import yolo_description, yolo_splits
from superbai.data_sets.files import without_ending
from superbai.data_sets.images import Labelled
from superbai.data_sets.labels import MODEL, Labels, box_array, note_report
from yolov3_tf2.errors import InputError, collecting
from yolov3_tf2.files.yolo_annotations import (
    MAX_LABEL_BYTES,
    POLYGONS,
    SCORED,
    is_yolo,
    read_yolo,
)


def find_label_files(files):
    """Returns the `File` that hold labels; none if no text holds a box.

    Those are the texts with the name of an image, wherever it lies, also damaged and
    empty ones; and all others with lines of boxes, whose image is missing.

    Args:
        files: a `DataSetFiles`.
    """
    images = yolo_splits.stems(files)
    texts = [
        file
        for file in files.labels
        if file.ending == ".txt"
        and not yolo_description.is_name_list(file)
        and not yolo_splits.is_image_list(file, images)
    ]
    found = [
        file
        for file in texts
        if without_ending(file.base) in images or _has_boxes(file)
    ]
    return found if any(map(_has_boxes, found)) else []


def read_yolo_data_set(label_files, files, notes, polygons_as_boxes):
    """Returns the `Labels` of text files.

    Args:
        label_files: the result of `find_label_files`.
        files: a `DataSetFiles`.
        notes: `Notes` to add to.
        polygons_as_boxes: draw boxes around polygons.

    Raises:
        InputError: there are no class names, or different ones.
    """
    description = yolo_description.describe(files, len(label_files))
    report = Counter()
    labelled = [
        _read_file(file, description, report, polygons_as_boxes) for file in label_files
    ]
    num_annotations = sum(len(each.boxes) for each in labelled)
    num_annotations += report[MODEL] + report[POLYGONS]
    note_report(report, notes)
    split_of, missing = yolo_splits.read_splits(description, files, notes)
    return Labels(
        "YOLO",
        description.class_names,
        labelled,
        len(label_files),
        num_annotations,
        len(description.class_names),
        split_of=split_of,
        missing=missing,
        key=without_ending,
        is_fraction=True,
        empty_unlabelled=True,
    )


def _read_file(file, description, report, polygons_as_boxes):
    """Returns the `Labelled` of a label file; its reason says if it is damaged."""
    boxes, reasons, found = [], [], Counter()
    with collecting(reasons):
        boxes = read_yolo(
            file.read(MAX_LABEL_BYTES),
            file.where,
            len(description.class_names),
            found,
            polygons_as_boxes=polygons_as_boxes,
            keypoints=description.num_keypoint_values,
        )
    num_scored = found.pop(SCORED, 0)
    report += found + Counter({MODEL: num_scored})
    return Labelled(
        file,
        file.base,
        _name(file),
        _places(file),
        None,
        None,
        box_array((*box.xyxy, box.label, box.is_around) for box in boxes),
        "".join(reasons),
        is_models=bool(num_scored) and not boxes,
    )


def _has_boxes(file):
    try:
        return is_yolo(file.read_start(4096))
    except InputError:
        return False


def _name(file):
    """Returns the path of the image of a label file, as far as that tells it."""
    path = without_ending(file.path)
    _, is_below, rest = f"/{path}".rpartition("/labels/")
    return rest if is_below else path


def _places(file):
    """Returns the paths, without extensions, at which the image of a label lies."""
    path = without_ending(file.path)
    before, is_below, rest = f"/{path}".rpartition("/labels/")
    places = [path]
    if is_below:
        places += [f"{before}/images/{rest}"[1:], f"{before}/{rest}"[1:]]
    return places
