"""Reads an annotated data set from anywhere: images with COCO, YOLO or VOC labels."""

import os
from collections import Counter, defaultdict
from typing import NamedTuple

import numpy as np
from absl import logging

from superbai.data_sets.images import find_images
from superbai.data_sets.labels import MODEL, UNLISTED
from superbai.label_json import Box
from superbai.labelled_image import build_record, fit_boxes, read_image
from superbai.splits import SplitSource
from yolov3_tf2.errors import InputError
from yolov3_tf2.files import archives
from yolov3_tf2.files.coco_annotations import WITHOUT_BBOX
from yolov3_tf2.files.yolo_annotations import POLYGONS

BY_NAME = "images found by name, in another folder or archive than their labels"
SPLIT_BY_DATA_SET = SplitSource(
    method="the splits are those of the data set, by its folders, files or lists",
    without="the data set does not have several splits",
    belongs="is in the splits",
    advice="put some into a folder '{split}', or all into one folder",
)


# Programs write fractions with five decimals or more.
_ROUNDING = 1e-5


class DataItem(NamedTuple):
    """One labelled image, not read yet; see `export.Item`.

    Attributes:
        source_id: its path in the data set.
        archive: the open archive that holds the image.
        entry: the entry of the image there.
        meta_name: what to call its labels in an error.
        tags: set of its splits.
        labelled_size: (width, height) when it was labelled, None if unknown.
        boxes: [boxes, 6] float64, see `images.Labelled`.
        is_labelled: whether there are labels for it, even if empty.
    """

    source_id: str
    archive: archives.Zip | archives.Folder
    entry: str
    meta_name: str
    tags: frozenset[str]
    labelled_size: tuple[int, int] | None
    boxes: np.ndarray
    is_labelled: bool


class DataSet:
    """An annotated data set, opened and checked; use as a context manager.

    It has the attributes and the methods of `export.Export`. All labels are read when
    it is opened.
    """

    split_source = SPLIT_BY_DATA_SET

    def __init__(self, files, labels, notes, *, skip_missing=False):
        """Finds the images of labels.

        Args:
            files: the open `DataSetFiles`, which it closes.
            labels: the `labels.Labels` in them.
            notes: `Notes` on reading them.
            skip_missing: leave out labelled images that are not among the files.

        Raises:
            InputError: a labelled image is missing or ambiguous, or there is none.
        """
        self.name, self.class_names = files.name, labels.class_names
        self.notes, self.gray_range = notes, None
        self._files, self._is_fraction = files, labels.is_fraction
        found = find_images(labels.labelled, files, labels.key)
        self._check_missing(labels, found, skip_missing)
        if found.by_name:
            notes.assumed[BY_NAME] += found.by_name
        self._read_items(labels, found)
        self.num_labelled = len(self.items) + len(notes.unreadable)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def close(self):
        """Closes the archives."""
        self._files.close()

    def read(self, item, notes=None):
        """Reads the image of an item; see `Export.read`."""
        notes = self.notes if notes is None else notes
        # Labels in fractions do not state the size. They are drawn on what a browser
        # shows, and Ultralytics and CVAT read images upright too.
        image = read_image(item, self.gray_range)
        size = (image.width, image.height)
        rows = item.boxes.copy()
        if self._is_fraction:
            rows[:, :4] = _snap(rows[:, :4]) * (size * 2)
        boxes = [
            Box((left, top, right, bottom), int(label), is_around=bool(is_around))
            for left, top, right, bottom, label, is_around in rows.tolist()
        ]
        boxes, box_notes = fit_boxes(boxes, size)
        notes.far_outside += box_notes.far_outside
        notes.left_out += box_notes.left_out
        notes.changed += box_notes.changed
        return build_record(item.source_id, image, boxes, self.gray_range, notes)

    def count_boxes(self, item):
        """Returns a Counter of the labels of an item, without reading its image."""
        return Counter(map(int, item.boxes[:, 4]))

    def _check_missing(self, labels, found, skip_missing):
        missing = [
            each.short_where
            for index, each in enumerate(labels.labelled)
            if index not in found.images and not each.is_models
        ]
        missing = list(dict.fromkeys([*missing, *labels.missing]))
        if missing and not skip_missing:
            total = len(labels.labelled) + len(labels.missing)
            advice = (
                "; give the images too, as the input 'images'"
                if not found.images
                else " (an image in the folder of another split or of other labels is "
                "not taken); add the images, or leave these out with --skip_missing"
            )
            raise InputError(
                f"{len(missing)} of {total} labelled images are not in {self.name} "
                f"or the input 'images', e.g. {', '.join(missing[:10])}{advice}."
            )
        if missing:
            self.notes.left_out["labelled images that are missing"] += len(missing)

    def _read_items(self, labels, found):
        """Joins the labels of each image, and decides on images without labels."""
        labels_of, files = defaultdict(list), self._files
        for index, file in found.images.items():
            labels_of[file.number].append(labels.labelled[index])
        # The same image may also be in an archive of all images.
        copies = {labels.key(file.path): file for file in found.images.values()}
        folders = _labelled_folders(files, copies, labels.key)
        self.items = []
        for file in files.images:
            here = labels_of.get(file.number)
            if labels.split_of is not None and file.number not in labels.split_of:
                self.notes.leave_out(UNLISTED, file.path)
                continue
            if here is None:
                is_listed = labels.split_of is not None or _place(file) in folders
                is_copy = labels.key(file.path) in copies
                if is_copy or not is_listed or not labels.empty_unlabelled:
                    self.notes.leave_out("images without a label", file.path)
                    continue
                reason = "images without a label file: taken for images without objects"
                self.notes.assumed[reason] += 1
            self._add_item(file, here or [], labels)
        for file in files.given_as_images:
            if not file.is_image and labels.split_of is None:
                self.notes.leave_out("files other than images", file.path)
        if not self.items:
            reasons = [f"{n} {why}" for why, n in self.notes.left_out.items()]
            reasons += [reason.rstrip(".") for _, reason in self.notes.unreadable[:10]]
            raise InputError(
                f"{self.name}: none of its {len(labels.labelled)} labelled images can "
                f"be used ({', '.join(reasons) or 'no image is listed'})."
            )
        if len(self.items) == 1:
            for _, reason in self.notes.unreadable[:10]:
                logging.warning("%s", reason)  # What asks for two says nothing of it.
        self._check_boxes()
        self._check_splits()
        self._shorten_identities()
        self._drop_single_split()

    def _add_item(self, file, here, labels):
        here = [each for each in here if not each.is_models] or here
        identity = self._files.identity(file)
        reasons = [each.reason for each in here if each.reason]
        if reasons:
            self.notes.unreadable.append((identity, reasons[0]))
            return
        if here and all(each.is_models for each in here):
            # Nobody has looked at it: its objects are not known.
            self.notes.leave_out("images that only a model has labelled", file.path)
            return
        self.items.append(
            DataItem(
                identity,
                file.archive,
                file.name,
                here[0].where if here else file.where,
                frozenset(self._splits_of(file, here, labels)),
                next((each.size for each in here if each.size), None),
                self._join_boxes(here),
                bool(here),
            )
        )

    def _check_boxes(self):
        """Raises an `InputError` if no box is left of objects that there are."""
        reasons = [
            f"{self.notes.left_out[reason]} {reason}"
            for reason in (POLYGONS, WITHOUT_BBOX, MODEL)
            if self.notes.left_out[reason]
        ]
        if reasons and not any(len(item.boxes) for item in self.items):
            has_polygons = self.notes.left_out.keys() & {POLYGONS, WITHOUT_BBOX}
            hint = "; --polygons=box draws boxes around polygons" * bool(has_polygons)
            raise InputError(
                f"{self.name}: expected boxes, got {', '.join(reasons)}{hint}."
            )

    def _check_splits(self):
        """Raises an `InputError` if no image of a split has labels, not even empty."""
        labelled = Counter(
            split for item in self.items for split in item.tags if item.is_labelled
        )
        all_images = Counter(split for item in self.items for split in item.tags)
        for split, number in all_images.items():
            if not labelled[split]:
                raise InputError(
                    f"{self.name}: none of the {number} images for {split} has a label "
                    "file; are those of this split missing?"
                )

    def _splits_of(self, file, here, labels):
        """Returns the set of the splits of an image."""
        if labels.split_of is not None:
            return labels.split_of[file.number]
        named = {each.split for each in here if each.split}
        if named:
            return named
        folder = self._files.split_of(file)
        folders = [folder] if folder else [self._files.split_of(e.file) for e in here]
        return {split for split in folders if split}

    def _join_boxes(self, here):
        """Returns the boxes of all labels of an image, equal ones once."""
        if not here:
            return np.zeros([0, 6])
        boxes = here[0].boxes
        if len(here) > 1:
            # COCO's files of persons with keypoints repeat those of all objects.
            joined = np.concatenate([each.boxes for each in here])
            rows = dict.fromkeys(map(tuple, joined.tolist()))
            boxes = np.array(list(rows), "float64").reshape(-1, 6)
            repeated = len(joined) - len(boxes)
            if repeated:
                reason = "boxes that several label files have for an image: used once"
                self.notes.changed[reason] += repeated
        return boxes

    def _shorten_identities(self):
        """Leaves out the folder that all images share: an archive may have one more."""
        folders = [item.source_id.split("/")[:-1] for item in self.items]
        shared = os.path.commonprefix(folders)
        prefix = "".join(f"{folder}/" for folder in shared)
        self.items = [
            item._replace(source_id=item.source_id.removeprefix(prefix))
            for item in self.items
        ]

    def _drop_single_split(self):
        """Forgets the splits where all images are in one: there is nothing to keep.

        If some are in none, they are for training, and those of a single split for
        testing or validation are not.
        """
        splits = frozenset().union(*(item.tags for item in self.items))
        num_without = sum(not item.tags for item in self.items)
        if len(splits) == 1 and (not num_without or splits == {"train"}):
            self.items = [item._replace(tags=frozenset()) for item in self.items]
        elif splits and num_without:
            reason = "images in no split: for training, as others are in a split"
            self.notes.assumed[reason] += num_without


def _place(file):
    """Returns the folder of a file, which is another one in each archive."""
    return (id(file.archive), file.folder)


def _labelled_folders(files, labelled, key):
    """Returns the folders, see `_place`, with labelled images or copies of them.

    Args:
        files: a `DataSetFiles`.
        labelled: dict from the keys of the labelled images to their files.
        key: see `Labels`.
    """
    folders = {_place(file) for file in labelled.values()}
    paths, seen = {file.folder for file in labelled.values()}, set(folders)
    for file in files.images:
        other = labelled.get(key(file.path)) if file.folder in paths else None
        if other is not None and _place(file) not in seen:
            seen.add(_place(file))  # One image of a folder shows it.
            if file.read() == other.read():
                folders.add(_place(file))
    return folders


def _snap(fractions):
    """Moves edges onto those of the image that rounding has put beside them."""
    clipped = np.clip(fractions, 0, 1)
    return np.where(np.abs(fractions - clipped) < _ROUNDING, clipped, fractions)
