"""Reads the labels of a data set in COCO's format: one JSON, or one for each split."""

import posixpath
import re

import numpy as np

from superbai.data_sets.files import split_of_name, split_of_words, without_ending
from superbai.data_sets.images import Labelled
from superbai.data_sets.labels import MODEL, Labels, box_array, keep_box
from superbai.labelled_image import AROUND
from yolov3_tf2.errors import InputError
from yolov3_tf2.files import coco_annotations
from yolov3_tf2.files.json_values import is_integer, is_number, is_one_line
from yolov3_tf2.names import normalise_name, normalise_path

# The labels of COCO's own train2017 have 450 MB.
MAX_COCO_BYTES = 2 * 2**30
# Words in the names of COCO's own files.
_TASKS = {"instances", "person", "keypoints", "stuff", "panoptic"}


class CocoReader:
    """Reads COCO files one by one, as only one of them fits the memory.

    Attributes:
        num_files: number of files that were read.
        first_file: the `File` read first; None before.
    """

    def __init__(self, polygons_as_boxes):
        self.num_files, self.first_file = 0, None
        self._polygons_as_boxes = polygons_as_boxes
        self._images = []  # (file, split, AnnotatedImage, reason, is_models, raw name)
        self._categories = []  # For each file a dict from id to (name, parent).
        self._predicted = set()  # Numbers of the files that only a model has labelled.
        self._used = set()  # Names of the categories that annotations have.
        self._num_annotations = 0
        self._ids = {}  # Known ids of annotations of each place.

    def add(self, file, coco, report):
        """Reads a file.

        Args:
            file: its `File`.
            coco: its parsed content; see `coco_annotations.parse_coco`.
            report: Counter of what was changed or left out, which is added to.

        Raises:
            InputError: it contradicts itself.
        """
        self.num_files += 1
        self.first_file = self.first_file or file
        folders = reversed(file.folder.split("/"))
        split = split_of_words(file.base) or next(
            filter(None, map(split_of_name, folders)), None
        )
        self._num_annotations += self._count_annotations(file, coco["annotations"])
        categories = {
            each["id"]: (each.get("name"), each.get("supercategory"))
            for each in coco["categories"]
            if isinstance(each, dict) and is_integer(each.get("id"))
        }
        self._categories.append(categories)
        for each in coco["annotations"]:
            category_id = each.get("category_id") if isinstance(each, dict) else None
            if is_integer(category_id) and category_id in categories:
                self._used.add(_as_name(categories[category_id][0]))
        coco["images"] = _without_copies(coco["images"], report)
        annotations, truth = coco["annotations"], []
        of_models = set()
        for each in annotations:
            if self._is_truth(each, report):
                truth.append(each)
            else:
                of_models.add(str(each.get("image_id")))
        coco["annotations"] = truth
        if annotations and not truth:
            self._predicted.add(file.number)
        unusable = {}
        images = coco_annotations.read_images(
            coco, file.where, report, fit=keep_box, unusable=unusable
        )
        for entry, image in zip(coco["images"], images, strict=True):
            is_models = str(entry["id"]) in of_models and not image.boxes
            reason = unusable.get(image.name, "")
            self._images.append(
                (file, split, image, reason, is_models, entry["file_name"])
            )

    def finish(self, name, notes):
        """Returns the `Labels` of all files.

        Args:
            name: what to call them in an error.
            notes: `Notes` to add to.

        Raises:
            InputError: they have no images, or no class.
        """
        if not self._images:
            raise InputError(
                f"{name}: expected COCO labels of some images, got an empty list of "
                "'images'; is it the right version of the data set?"
            )
        class_names = self._class_names(notes)
        if not class_names:
            raise InputError(
                f"{name}: expected COCO labels with classes, got no 'categories'."
            )
        index = {name: number for number, name in enumerate(class_names)}
        has_truth = len(self._predicted) < self.num_files
        labelled = [
            Labelled(
                file,
                _source(file),
                _image_path(image.name),
                _places(file, image.name),
                split,
                image.size,
                box_array(
                    (*box.xyxy, index[box.class_name], box.score is not None)
                    for box in image.boxes
                ),
                reason,
                # Beside a file of truth, one of predictions is not about all objects,
                # also where it has none.
                is_models or (has_truth and file.number in self._predicted),
                raw_name,
            )
            for file, split, image, reason, is_models, raw_name in self._images
        ]
        return Labels(
            "COCO",
            class_names,
            labelled,
            self.num_files,
            self._num_annotations,
            len({n for each in self._categories for n in each}),
        )

    def _count_annotations(self, file, annotations):
        """Returns how many annotations are not in another file on the same images.

        COCO's files of persons with keypoints have the ids of those of all objects.
        """
        place = (id(file.archive), file.folder, _source(file))
        ids = (each.get("id") for each in annotations if isinstance(each, dict))
        ids = [each for each in ids if is_integer(each) and abs(each) < 2**63]
        ids = np.array(ids, "int64")
        known = self._ids.get(place, np.array([], "int64"))
        self._ids[place] = np.concatenate([known, ids])
        return len(annotations) - int(np.isin(ids, known).sum())

    def _is_truth(self, annotation, report):
        """Returns whether an annotation is used; draws the boxes around polygons."""
        if not isinstance(annotation, dict):
            return True  # The reader says what it is.
        source = annotation.get("source")
        is_scored = annotation.get("score") is not None
        if is_scored or (isinstance(source, str) and source.lower() == "model"):
            report[MODEL] += 1
            return False
        if self._polygons_as_boxes and annotation.get("bbox") in (None, []):
            around = _box_around(annotation.get("segmentation"))
            if around:
                annotation["bbox"] = around
                report[AROUND] += 1
        return True

    def _class_names(self, notes):
        """Returns the class names of all files, in the order of their ids."""
        names, id_of, is_contradictory = [], {}, False
        for categories in self._categories:
            parents = {
                _as_name(parent)
                for name, parent in categories.values()
                if _as_name(parent) != _as_name(name)
            }
            for category_id, (name, _) in sorted(categories.items()):
                name = _as_name(name)
                is_used = name in self._used
                if not is_used and (name in parents or not is_one_line(name)):
                    notes.leave_out("unused categories above the classes", name)
                    continue
                if name and name not in id_of:
                    names.append(name)
                is_contradictory |= id_of.setdefault(name, category_id) != category_id
        if is_contradictory and len(self._categories) > 1:
            notes.assumed[
                "the ids of categories differ between files: the same class if they "
                "have the same name"
            ] += 1
        return names


def _source(file):
    """Returns what a file is about, the same for those with other tasks.

    The images of `instances_train.json` are those of `person_keypoints_train.json`, and
    those of `cam1.json` are not those of `cam2.json`, even if they have equal names.
    """
    words = re.split(r"[^A-Za-z0-9]+", file.base.lower())
    return "_".join(word for word in words if word not in _TASKS)


def _as_name(value):
    return normalise_name(value) if isinstance(value, str) else ""


def _without_copies(images, report):
    """Leaves out entries of `images` that are there twice, equal in all."""
    seen, kept = {}, []
    for image in images:
        image_id = image.get("id") if isinstance(image, dict) else None
        first = seen.setdefault(image_id, image) if is_integer(image_id) else image
        if first is not image and first == image:
            report["image entries listed twice"] += 1
        else:
            kept.append(image)
    return kept


def _box_around(segmentation):
    """Returns the COCO bbox around polygons; None of a mask or anything else."""
    if not isinstance(segmentation, list):
        return None
    parts = [part for part in segmentation if isinstance(part, list)]
    values = [value for part in parts for value in part]
    is_whole = all(len(part) % 2 == 0 for part in parts) and len(values) >= 6
    if not is_whole or not all(map(is_number, values)):
        return None
    xs = [x for part in parts for x in part[::2]]
    ys = [y for part in parts for y in part[1::2]]
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]


def _image_path(name):
    """Returns the path of an image without parts that lead out of a folder."""
    parts = (p for p in name.split("/") if p not in (".", ".."))
    return "/".join(parts)


def _places(file, raw_name):
    """Returns the paths at which the image of a JSON may lie, the likeliest first."""
    name = _image_path(raw_name)
    above = file.folder.rstrip("/").rpartition("/")[0]
    above += "/" * bool(above)
    beside = normalise_path(posixpath.normpath(file.folder + raw_name))
    # The folder `train2017` of `instances_train2017.json`.
    words = re.split(r"[^A-Za-z0-9]+", without_ending(file.base))
    named = [f"{above}{place}{w}/{name}" for w in words for place in ("", "images/")]
    # `images/cam1` of `annotations/cam1/a.json`.
    before, is_below, rest = f"/{file.folder}".rpartition("/annotations/")
    below = [f"{before}/images/{rest}{name}"[1:]] * bool(is_below)
    places = (
        *named,
        beside,
        *below,
        f"{file.folder}images/{name}",
        f"{above}images/{name}",
        above + name,
        name,
        f"images/{name}",
    )
    return list(dict.fromkeys(places))
