"""Recognises the format of labels by their content, and opens them."""

import re
from collections import Counter
from pathlib import Path

from absl import logging

from superbai import summary
from superbai.data_sets import voc_data_set, yolo_data_set, yolo_description
from superbai.data_sets.claims import check_claims
from superbai.data_sets.coco_data_set import MAX_COCO_BYTES, CocoReader
from superbai.data_sets.data_set import DataSet
from superbai.data_sets.files import (
    LABEL_ENDINGS,
    DataSetFiles,
    open_archives,
)
from superbai.data_sets.labels import note_report
from superbai.download_archive import find_sample
from superbai.export import Export
from superbai.notes import Notes
from yolov3_tf2.errors import InputError, collecting, raise_collected
from yolov3_tf2.files.archive_entries import describe_nested
from yolov3_tf2.files.coco_annotations import is_coco, parse_coco

_FORMATS = (
    "an export of the Superb AI Suite (project.json), COCO (a JSON with 'images', "
    "'annotations' and 'categories'), YOLO (a .txt for each image) or Pascal VOC (an "
    ".xml for each image)"
)
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def open_export(
    images,
    labels,
    *,
    polygons_as_boxes=False,
    include_unsubmitted=False,
    skip_missing=False,
    find_images_by="path",
):
    """Opens an export of the Suite, or a data set with COCO, YOLO or VOC labels.

    Args:
        images: list of `pathlib.Path`: zips, tars and folders of images, and images;
            may be empty where the labels hold the images.
        labels: list of `pathlib.Path`: zips, tars and folders of labels, and files.
        polygons_as_boxes: draw boxes around polygons and rotated boxes.
        include_unsubmitted: also use the Suite's labels that are not submitted yet, if
            they have an object.
        skip_missing: leave out labelled images that are missing.
        find_images_by: for the Suite's images, see `image_matching.match_images`.

    Returns:
        An `Export` or a `DataSet`.

    Raises:
        InputError: the labels are in none of the formats or in several, or cannot be
            used, or images are missing.
    """
    name = ", ".join(map(str, labels[:3])) + ", ..." * (len(labels) > 3)
    with open_archives(labels) as opened:
        is_suite = any(map(_holds_project, opened))
        if not is_suite:
            _warn_of_suite_options(include_unsubmitted, find_images_by)
            with open_archives(images) as opened_images:
                files, notes = DataSetFiles(name, opened, opened_images), Notes()
                found = _read_labels(files, notes, polygons_as_boxes)
                _log_format(
                    labels,
                    found.kind,
                    (found.num_files, "label files"),
                    (found.num_images, "images"),
                    (found.num_annotations, "objects"),
                    (len(found.class_names), "classes"),
                )
                check_claims(found, files)
                return DataSet(files, found, notes, skip_missing=skip_missing)
        _check_others(name, opened)
    for archive in opened:
        archive.close()
    export = Export(
        images,
        find_project(labels),
        polygons_as_boxes=polygons_as_boxes,
        include_unsubmitted=include_unsubmitted,
        skip_missing=skip_missing,
        find_images_by=find_images_by,
    )
    _log_format(
        [Path(export.name)],
        export.kind,
        (export.num_labelled, "labelled images"),
        (len(export.class_names), "classes"),
    )
    return export


def _log_format(paths, kind, *counts):
    """Logs what labels are, by their file names: their folders would fill the line."""
    names = ", ".join(path.name for path in paths[:3]) + ", ..." * (len(paths) > 3)
    numbers = ", ".join(summary.format_number(*count) for count in counts)
    logging.info("%s: %s, %s", names, kind, numbers)


def _warn_of_suite_options(include_unsubmitted, find_images_by):
    """Warns of parameters that have a meaning for labels of Superb AI only."""
    for name, is_set, why in (
        ("include_unsubmitted", include_unsubmitted, "other labels have no status"),
        ("find_images_by", find_images_by != "path", "other labels name their images"),
    ):
        if is_set:
            logging.warning(
                "%s has no effect, it is for labels of Superb AI: %s", name, why
            )


def _check_others(name, opened):
    """Raises an `InputError` if there are other labels beside those of Superb AI."""
    others = [archive for archive in opened if not _holds_project(archive)]
    if others:
        files, coco = DataSetFiles(name, others, []), CocoReader(False)
        _read_jsons(files, coco, Counter())
        own = next(filter(_holds_project, opened)).name
        found = _find_label_files(files, coco)
        places = {kind: each[0].where for kind, each in found.items()}
        _check_one_format(name, {"Superb AI": own, **places})


def _find_label_files(files, coco):
    """Returns a dict from each format that there is to the `File` with its labels.

    Args:
        files: a `DataSetFiles`.
        coco: a `CocoReader` that has read them.
    """
    found = {
        "COCO": [coco.first_file] if coco.first_file else [],
        "Pascal VOC": voc_data_set.find_label_files(files),
        "YOLO": yolo_data_set.find_label_files(files),
    }
    return {kind: each for kind, each in found.items() if each}


def _check_one_format(name, places):
    """Raises an `InputError` if a dict from formats to places has several."""
    if len(places) > 1:
        listed = " and ".join(f"{kind} ({where})" for kind, where in places.items())
        raise InputError(
            f"{name}: expected labels in one format, got {listed}; remove the files of "
            "all but one."
        )


def find_project(paths):
    """Returns the zip or folder of the labels; `paths` may be all files of a folder."""
    projects = [path for path in paths if path.name == "project.json"]
    if projects:
        return min(projects, key=lambda path: len(path.parts)).parent
    if len(paths) != 1:
        raise InputError(
            f"input 'labels': expected one zip, got {len(paths)}: "
            f"{', '.join(map(str, paths))}."
        )
    return paths[0]


def _holds_project(archive):
    """Returns whether an archive holds what the Suite or its programs export."""
    has_project = any(n.rpartition("/")[2] == "project.json" for n in archive.files)
    return has_project or find_sample(archive) is not None


def _read_labels(files, notes, polygons_as_boxes):
    """Returns the `labels.Labels` of a data set."""
    coco, report = CocoReader(polygons_as_boxes), Counter()
    damaged = _read_jsons(files, coco, report)
    found = _find_label_files(files, coco)
    if len(found) > 1 and "YOLO" in found and not yolo_description.has_names(files):
        reason = "texts with numbers, and no class names for them: no YOLO labels"
        notes.left_out[reason] += len(found.pop("YOLO"))
    _check_one_format(files.name, {k: each[0].where for k, each in found.items()})
    if "YOLO" in found:
        return yolo_data_set.read_yolo_data_set(
            found["YOLO"], files, notes, polygons_as_boxes
        )
    if "Pascal VOC" in found:
        return voc_data_set.read_voc_data_set(found["Pascal VOC"], files, notes)
    raise_collected(damaged, f"{files.name}: of its JSON files")
    if not found:
        raise _unknown_format(files)
    note_report(report, notes)
    labels = coco.finish(files.name, notes)
    files.choose_encodings([each.name for each in labels.labelled])
    return labels


def _read_jsons(files, coco, report):
    """Reads the JSONs that are COCO; returns the messages on those that are damaged."""
    messages = []
    for file in files.labels:
        if file.ending != ".json":
            continue
        value = None
        with collecting(messages):
            value = parse_coco(file.read(MAX_COCO_BYTES), file.where)
            if is_coco(value):
                coco.add(file, value, report)
        if isinstance(value, dict):
            _refuse_delta(file, value)
    return messages


def _refuse_delta(file, value):
    """Raises an `InputError` on a JSON in the format 'delta'."""
    classes = value.get("classes")
    classes = classes if isinstance(classes, list) else []
    has_ids = any(
        isinstance(each, dict) and _UUID.fullmatch(str(each.get("id")))
        for each in classes
    )
    is_named = "delta" in (str(value.get("format")).lower(), file.base[:5].lower())
    if "schema_version" in value and (
        "annotations_by_type" in value or has_ids or is_named
    ):
        raise InputError(
            f"{file.where}: an export of the Superb Platform in its own format "
            "'delta', whose layout is not published; export the version as COCO or "
            "YOLO instead."
        )


def _unknown_format(files):
    """Returns the `InputError` for files without labels."""
    endings = Counter(file.ending or file.base for file in files.labels)
    listed = ", ".join(f"{number} {end}" for end, number in endings.most_common(5))
    nested = describe_nested([file.name for file in files.labels])
    hint = f"; it holds {nested}" if nested else ""
    if any(file.ending in LABEL_ENDINGS for file in files.given_as_images):
        hint = "; are the inputs 'images' and 'labels' swapped?"
    elif all(file.is_image for file in files.labels) and files.labels:
        hint = "; these are images: give their labels too"
    return InputError(
        f"{files.name}: expected labels as {_FORMATS}, got files in none of these "
        f"formats ({listed or 'no files'}){hint}{'' if hint.endswith('?') else '.'}"
    )
