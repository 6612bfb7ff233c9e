"""Reads an export of the Superb AI Suite: its label download and its image download.

Labels come in three spellings: legacy (no version; `class`, `shape.box`), camelCase
(0.3: `className`, `annotationType`) and snake_case (0.4 and later). The image zip holds
`<folder>/<data_key>`, to which the Suite usually appends another extension:
`a.jpg.jpg`. Nothing is extracted to disk.
"""

from collections import Counter
from contextlib import ExitStack, closing
from typing import NamedTuple

from absl import logging

from superbai import export_json, label_json
from superbai.download_archive import find_sample, open_labels
from superbai.image_matching import match_images
from superbai.labelled_image import build_record, fit_boxes, read_image
from superbai.notes import Notes
from superbai.splits import SPLIT_BY_TAGS
from superbai.summary import format_number
from yolov3_tf2.errors import InputError
from yolov3_tf2.files import archives
from yolov3_tf2.files.archive_entries import describe_nested
from yolov3_tf2.files.image_kinds import (
    is_image,
    is_image_file,
    is_image_name,
    split_images,
)


class Item(NamedTuple):
    """One labelled image, not read yet.

    Attributes:
        dataset, key: its identity in the Suite; a key alone is not unique.
        archive: the open archive that holds the image.
        entry: the entry of the image there.
        meta_name: the entry of its meta among the labels.
        label_name: the entry of its label; empty if it has none yet.
        tags: set of its tags, lower case.
        labelled_size: (width, height) when it was labelled, None if unknown.
        is_submitted: whether its label was submitted, and so is complete.
    """

    dataset: str
    key: str
    archive: archives.Zip | archives.Folder
    entry: str
    meta_name: str
    label_name: str
    tags: frozenset[str]
    labelled_size: tuple[int, int] | None
    is_submitted: bool

    @property
    def source_id(self):
        """`<dataset>/<key>`."""
        return _source_id(self.dataset, self.key)


class Export:
    """Labels and images, opened and checked; use as a context manager.

    Attributes:
        name: what to call the labels in an error.
        kind: what they are, for the log.
        class_names: the classes of the project, in its order.
        items: list of `Item`, in the order of the image archives.
        gray_range: the (black, white) values of all images with 16 bits per channel;
            None until `gray_range.py` has measured it.
        num_labelled: number of `items`, and of labels that cannot be read.
        notes: `Notes` on opening the export, and on reading it where `read` has no
            other.
    """

    split_source = SPLIT_BY_TAGS

    def __init__(
        self,
        images,
        labels,
        *,
        polygons_as_boxes=False,
        include_unsubmitted=False,
        skip_missing=False,
        find_images_by="path",
    ):
        """Opens an export.

        Args:
            images: list of `pathlib.Path`: zips and folders of images, and images. May
                be empty, or have `labels` alone, if that holds the images too.
            labels: the zip or the folder of the label export, or of the download of
                superb-ai-cli or spb-cli.
            polygons_as_boxes: draw boxes around polygons and rotated boxes.
            include_unsubmitted: also convert images whose labels are not submitted yet,
                if they have an object.
            skip_missing: leave out labelled images that are not among `images`.
            find_images_by: see `image_matching.match_images`.

        Raises:
            InputError: an archive cannot be read, the two are swapped, the project is
                not an image project with boxes, or a labelled image is missing or
                ambiguous.
        """
        self.notes, self.gray_range = Notes(), None
        self._kinds = ("box", *(label_json.BOX_AROUND if polygons_as_boxes else ()))
        with ExitStack() as stack:
            self._labels = stack.enter_context(closing(open_labels(labels)))
            self.name, self.kind = self._labels.name, self._labels.kind
            if self._labels.holds_images and _are_same(images, labels):
                images = []
            elif images and self._labels.count_images():
                logging.warning(
                    "%s: not used of it, as the input 'images' is given: %s",
                    self.name,
                    format_number(self._labels.count_images(), "images"),
                )
            elif not images:
                raise InputError(
                    f"{self.name} holds labels alone: give its images too, as the "
                    "input 'images'; only the folder of `superb download` or `spb "
                    "download` holds both."
                )
            self._images = [
                stack.enter_context(archives.open_archive(path))
                for path in _group_files(images)
            ]
            self._check_images()
            self._read_project()
            self._read_items(include_unsubmitted, skip_missing, find_images_by)
            self._open = stack.pop_all()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def close(self):
        """Closes the archives."""
        self._open.close()

    def read(self, item, notes=None):
        """Reads the label and the image of an `Item`.

        Args:
            item: one of `items`.
            notes: `Notes` to add to; those of the export if None.

        Returns:
            A `Record`, its boxes in the order of the label, clipped to the image; None
            where the label is not submitted and has no object yet.

        Raises:
            InputError: the label or the image cannot be used.
            GrayRangeUnknown: the image has 16 bits per channel.
        """
        notes = self.notes if notes is None else notes
        label = self._read_label(item)
        image = read_image(item, self.gray_range)
        notes.left_out += label.left_out
        notes.repeated |= label.repeated
        boxes, box_notes = fit_boxes(label.boxes, (image.width, image.height))
        notes.far_outside += box_notes.far_outside
        if not boxes and not item.is_submitted:
            notes.left_out["images not submitted and without any object"] += 1
            return None
        notes.left_out += box_notes.left_out
        notes.changed += box_notes.changed
        return build_record(item.source_id, image, boxes, self.gray_range, notes)

    def count_boxes(self, item):
        """Returns a Counter of the labels of an `Item`, without reading its image.

        It is empty where the label cannot be used, which `read` reports.
        """
        try:
            return Counter(box.label for box in self._read_label(item).boxes)
        except InputError:
            return Counter()

    def _read_label(self, item):
        return label_json.read_objects(
            self._labels.load_label(item.label_name) if item.label_name else None,
            self._classes,
            self._kinds,
            f"{self.name}: {item.label_name}",
        )

    def _check_images(self):
        for archive in self._images:
            has_images = any(map(is_image_name, archive.files))
            nested = "" if has_images else describe_nested(archive.files)
            if nested and not split_images(archive)[0]:
                raise InputError(f"{archive.name} holds no images, but {nested}.")
            parts = {part for e in archive.files for part in e.split("/")}
            # A dataset of a download may be called so.
            is_export = {"project.json", "meta"} <= parts and not find_sample(archive)
            if is_export or not parts:
                raise InputError(
                    f"{archive.name} holds "
                    f"{'a label export' if parts else 'no files'}; expected the image "
                    "download of the Suite. Are the inputs 'images' and 'labels' "
                    "swapped?"
                )

    def _read_project(self):
        project = self._labels.project
        export_json.check_project(project, self.name)
        assumption = export_json.format_assumption(project)
        if assumption:
            self.notes.assumed[assumption] += 1
        classes = export_json.read_classes(project, self.name, self._kinds)
        for name in classes.shared:
            self.notes.assumed[
                f"class name '{name}' of several annotation types: treated as one class"
            ] += 1
        self.class_names, self._classes = classes.names, classes

    def _read_items(self, include_unsubmitted, skip_missing, find_images_by):
        exact, metas = self._labels.read_metas(include_unsubmitted, self.notes)
        identities = list(exact)
        if self._images:
            archives.choose_encodings(self._images, map("/".join, identities))
            matched = match_images(
                identities,
                self._images,
                metas.keys(),
                find_by=find_images_by,
                exact=exact,
            )
        else:
            matched = self._labels.match_images(metas.keys())
            if find_images_by != "path":
                logging.warning(
                    "find_images_by has no effect: the images lie beside their labels"
                )
        by_name = len(matched.by_name & metas.keys())
        if by_name:
            reason = "images found by file name only, in another folder"
            self.notes.assumed[reason] += by_name
        in_others = len(matched.in_other_datasets & metas.keys())
        if in_others:
            reason = (
                "images taken from a folder or archive that is named like another "
                "dataset"
            )
            self.notes.assumed[reason] += in_others
        if matched.project_folder:
            reason = (
                f"folder or archive '{matched.project_folder}' has the name of a "
                "dataset and the images of all"
            )
            self.notes.assumed[reason] += 1
        self._check_missing(metas, matched, skip_missing, exact.keys())
        found = [identity for identity in metas if identity in matched.entries]
        if not found:
            reasons = [f"{n} {why}" for why, n in self.notes.left_out.items()]
            reasons += [reason.rstrip(".") for _, reason in self.notes.unreadable[:10]]
            raise InputError(
                f"{self.name}: none of its {len(identities)} labels can be used "
                f"({', '.join(reasons)}); submit some in the Suite, then export again."
            )
        for entry in matched.rest:
            reason = "images without a label"
            if entry.number in matched.unused:
                reason = "images that fit labels which have another file"
            if not is_image(entry.archive, entry.name):
                reason = "files other than images"
            self.notes.leave_out(reason, entry.name)
        self.num_labelled = len(found) + len(self.notes.unreadable)
        # In the order of the archives: a zip is read once, from front to back.
        found.sort(key=lambda identity: matched.entries[identity].number)
        self.items = [
            Item(
                *identity,
                matched.entries[identity].archive,
                matched.entries[identity].name,
                *metas[identity],
            )
            for identity in found
        ]

    def _check_missing(self, metas, matched, skip_missing, identities):
        """Raises or counts labelled images that are not in the image archives."""
        missing = [_source_id(*i) for i in metas if i not in matched.entries]
        if missing and not skip_missing:
            images = ", ".join(archive.name for archive in self._images) or self.name
            nested = describe_nested([f for a in self._images for f in a.files])
            images += f" (which holds {nested})" if nested else ""
            raise InputError(
                f"{len(missing)} of {len(metas)} labelled images are not in {images}, "
                f"e.g. {', '.join(missing[:10])} (names with another extension, as in "
                "a.jpg.jpg, were tried too); download the images again, or leave these "
                f"out with --skip_missing.{_hint(matched, identities)}"
            )
        if missing:
            self.notes.left_out["labelled images that are missing"] += len(missing)


def _are_same(paths, path):
    """Returns whether none of `paths` is another one than `path`."""
    return {each.resolve() for each in paths} <= {path.resolve()}


def _hint(matched, identities):
    """Returns what may help if files that were not taken are the missing images."""
    by_other = {}
    for identity, place in matched.elsewhere.items():
        by_other.setdefault(bool(place.dataset), (identity, place))
    if True in by_other:
        identity, (entry, dataset) = by_other[True]
        return (
            f" {entry.archive.name}: {entry.name} is not taken for "
            f"{_source_id(*identity)}, as it lies in '{dataset}', the name of another "
            f"dataset{_advice(matched, identities)}."
        )
    if by_other:
        identity, (entry, _) = by_other[False]
        return (
            f" {entry.archive.name}: {entry.name} has the file name of "
            f"{_source_id(*identity)}; if it is that image, use "
            "--find_images_by=file_name."
        )
    return ""


def _advice(matched, identities):
    """Returns what to do about files in folders that are named like other datasets.

    By their keys alone these images could be those of the other datasets.
    """
    others = {
        (place.dataset, key)
        for (_, key), place in matched.elsewhere.items()
        if place.dataset
    }
    names = {dataset for dataset, _ in others}
    if not others.isdisjoint(identities):
        return ", which has a label with this key; give the images of each dataset"
    if any(dataset in names for dataset, _ in matched.entries):
        return (
            ", which has images there; give the images of each dataset (if it is the "
            "folder of the project, see --find_images_by)"
        )
    return "; if that is the name of the project, use --find_images_by=key"


def _group_files(paths):
    """Returns archives one by one, and loose images with other files as one list."""
    loose = [path for path in paths if not archives.is_archive(path)]
    if not any(map(is_image_file, loose)):
        return paths
    loose_set = set(loose)
    return [*(path for path in paths if path not in loose_set), loose]


def _source_id(dataset, key):
    return f"{dataset}/{key}" if dataset else key
