"""Reads the two downloads of the Superb AI Suite: labels and pictures.

The label zip holds `project.json`, `meta/<dataset>/<data_key>.json`, one a picture,
and `labels/<label_id>.json`. It comes in three spellings: legacy (no version;
`class`, `shape.box`), camelCase (0.3: `className`, `annotationType`) and snake_case
(0.4 and later). The picture zip holds `<folder>/<data_key>`, where the Suite usually
appends one more extension: `a.jpg.jpg`. Nothing is extracted to disk.
"""

import json
import re
from collections import Counter
from typing import NamedTuple

from superbai import export_json
from superbai.image_matching import match_images
from yolov3_tf2.errors import InputError
from yolov3_tf2.files import archives
from yolov3_tf2.files.images import is_image_name, prepare_image
from yolov3_tf2.files.packed_list import PackedList

# The largest label known has 5 MB; one of this size takes a few hundred in memory.
MAX_JSON_BYTES = 32 * 2**20
# What a rounding or a careless hand explains, pixels outside the picture.
_CARELESS_PX = 2


class Item(NamedTuple):
    """One labelled picture before it is read.

    Attributes:
        dataset, key: its identity in the Suite; a key alone is not unique.
        meta_name: its entry in the labels.
        archive: the number of its picture's archive among those of the export.
        entry: its picture's entry there.
        label_name: the entry of its label in the labels; empty where it has none yet.
        tags: set of its tags, lower case.
        labelled_size: (width, height) that it was labelled at, None if unknown.
        is_submitted: whether its label was submitted, and so is complete.
    """

    dataset: str
    key: str
    meta_name: str
    archive: int
    entry: str
    label_name: str
    tags: frozenset[str]
    labelled_size: tuple[int, int] | None
    is_submitted: bool

    @property
    def source_id(self):
        """`<dataset>/<key>`."""
        return _source_id(self.dataset, self.key)


class Record(NamedTuple):
    """One labelled picture, as a TFRecord holds it.

    Attributes:
        source_id: `<dataset>/<data_key>`, the picture's identity in the Suite.
        encoded: bytes of a JPEG or PNG.
        format: `jpeg` or `png`.
        width, height: pixels.
        boxes_px: list of xyxy in pixels.
        labels: list of indices into the class names.
    """

    source_id: str
    encoded: bytes
    format: str
    width: int
    height: int
    boxes_px: list[tuple[float, float, float, float]]
    labels: list[int]


class Export:
    """The labels and the pictures, opened and checked; use as a context manager.

    Attributes:
        name: what to call the labels in an error.
        class_names: the project's classes, in its order.
        items: sequence of `Item`, in the order of the pictures' archives.
        left_out: Counter of what is not converted, by reason; `read` adds to it.
        changed: Counter of boxes that are not as they were drawn; `read` adds to it.
        assumed: Counter of what the export does not say and was assumed; `read` adds
            to it.
        far_outside: number of boxes that reached over the picture's edge by more than
            two pixels; `read` adds to it.
    """

    def __init__(
        self,
        images,
        labels,
        *,
        polygons_as_boxes=False,
        include_unsubmitted=False,
        skip_missing=False,
    ):
        """Opens an export.

        Args:
            images: list of `pathlib.Path`: zips and folders of pictures, and pictures.
            labels: the zip or the folder of the label export.
            polygons_as_boxes: draw boxes around polygons and rotated boxes.
            include_unsubmitted: take pictures whose labels are still worked on, where
                they have an object.
            skip_missing: leave labelled pictures out that are not among the pictures.

        Raises:
            InputError: an archive is none, the two are swapped, the project is not of
                images with boxes, or a labelled picture is missing or ambiguous.
        """
        self.left_out, self.changed, self.assumed = Counter(), Counter(), Counter()
        self.far_outside = 0
        self._kinds = ("box", *(export_json.CORNERED if polygons_as_boxes else ()))
        self._include_unsubmitted = include_unsubmitted
        self._skip_missing = skip_missing
        self._open = []
        try:
            self._labels = self._open_archive(labels)
            self.name = self._labels.name
            self._images = [self._open_archive(path) for path in _group(images)]
            self._root = self._find_root()
            self.class_names, self._class_index = self._read_project()
            self.items = self._read_items()
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def close(self):
        """Closes the archives."""
        for archive in self._open:
            archive.close()

    def reopen(self):
        """Opens the archives anew in a forked process."""
        for archive in self._open:
            archive.reopen()

    def take_notes(self):
        """Returns all counts, and sets them to zero: another process can add them."""
        notes = (self.left_out, self.changed, self.assumed, self.far_outside)
        self.left_out, self.changed, self.assumed = Counter(), Counter(), Counter()
        self.far_outside = 0
        return notes

    def add_notes(self, notes):
        """Adds counts that were taken by `take_notes`."""
        left_out, changed, assumed, far_outside = notes
        self.left_out += left_out
        self.changed += changed
        self.assumed += assumed
        self.far_outside += far_outside

    def read(self, item):
        """Reads the label and the picture of an `Item`.

        Returns:
            A `Record`, its boxes in the order of the label, clipped to the picture;
            None where the label is not submitted and has no object yet.

        Raises:
            InputError: the label or the picture cannot be used.
        """
        label = export_json.read_objects(
            self._load_json(item.label_name) if item.label_name else None,
            self._class_index,
            self._kinds,
            f"{self.name}: {item.label_name}",
        )
        archive = self._images[item.archive]
        where = f"{archive.name}: {item.entry}"
        picture = prepare_image(archive.read(item.entry), where, item.labelled_size)
        self.left_out.update(label.left_out)
        kept, changes, too_small = [], Counter(), 0
        for box in label.boxes:
            clipped = _clip(box.xyxy, picture.width, picture.height)
            outside = max(abs(a - b) for a, b in zip(box.xyxy, clipped, strict=True))
            self.far_outside += outside > _CARELESS_PX
            if min(clipped[2] - clipped[0], clipped[3] - clipped[1]) < 1:
                too_small += 1
                continue
            kept.append((clipped, box.label))
            changes["boxes with a negative size turned round"] += box.is_turned
            changes["boxes drawn around polygons and rotated boxes"] += box.is_around
            changes["boxes clipped to the picture"] += outside > 0
        if not item.is_submitted and not kept:
            self.left_out["pictures not submitted, without an object so far"] += 1
            return None
        if too_small:
            reason = "boxes under one pixel or outside the picture"
            self.left_out[reason] += too_small
        if picture.is_guess:
            self.assumed[
                "turned photographs whose size does not tell how they were labelled: "
                "boxes taken as drawn on what a browser shows"
            ] += 1
        self.changed.update({name: n for name, n in changes.items() if n})
        return Record(
            item.source_id,
            picture.encoded,
            picture.format,
            picture.width,
            picture.height,
            [box for box, _ in kept],
            [label for _, label in kept],
        )

    def _open_archive(self, path):
        archive = archives.open_archive(path)
        self._open.append(archive)
        return archive

    def _read_project(self):
        project = self._load_object(self._root + "project.json")
        export_json.check_project(project, self.name)
        assumption = export_json.assumption(project)
        if assumption:
            self.assumed[assumption] += 1
        names, index, shared = export_json.read_classes(project, self.name, self._kinds)
        for name in shared:
            reason = f"class name of several types, '{name}': taken as one class"
            self.assumed[reason] += 1
        return names, index

    def _find_root(self):
        """Finds `project.json`, and with it a folder that wraps the whole export."""
        entries = self._labels.files
        found = [e for e in entries if e.rpartition("/")[2] == "project.json"]
        if not found:
            has_pictures = any(map(is_image_name, entries))
            held = "pictures" if has_pictures else "other files"
            raise InputError(
                f"{self.name} holds {held} and no project.json: "
                + (
                    "are the inputs 'images' and 'labels' swapped?"
                    if has_pictures
                    else "expected the label export of the Suite (Export, then "
                    "Export history)."
                )
            )
        for archive in self._images:
            parts = {part for e in archive.files for part in e.split("/")}
            if {"project.json", "meta"} <= parts or not parts:
                raise InputError(
                    f"{archive.name} holds "
                    f"{'a label export' if parts else 'no files'}; expected the image "
                    "download of the Suite. Are the inputs 'images' and 'labels' "
                    "swapped?"
                )
        found.sort(key=lambda e: e.count("/"))
        if len(found) > 1 and found[0].count("/") == found[1].count("/"):
            raise InputError(
                f"{self.name} holds several exports, {found[0]} and {found[1]}; "
                "expected one."
            )
        return found[0].removesuffix("project.json")

    def _load_json(self, name):
        text = self._labels.read(name, MAX_JSON_BYTES)
        try:
            value = json.loads(text.decode("utf-8-sig"))
            if re.search(rb"\\u[dD][89a-fA-F]", text):  # Half a pair is no text.
                json.dumps(value, ensure_ascii=False).encode("utf-8")
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"{self.name}: malformed JSON in {name}: {error}"
            ) from error
        return value

    def _load_object(self, name):
        return export_json.as_dict(self._load_json(name), f"{self.name}: {name}")

    def _read_items(self):
        meta_names, wanted = self._read_metas()
        matched = match_images(list(meta_names), self._images, wanted.keys())
        self._check_missing(wanted, matched)
        found = [identity for identity in wanted if identity in matched.entries]
        if not found:
            raise InputError(
                f"{self.name}: none of its {len(meta_names)} labels can be used ("
                + ", ".join(f"{n} {why}" for why, n in self.left_out.items())
                + "); submit some in the Suite, then export again."
            )
        for entry in matched.rest:
            is_picture = is_image_name(entry.name)
            self.left_out[
                "pictures without a label"
                if is_picture
                else "files that are no pictures"
            ] += 1
        # In the order of the archives: a zip is read once, from front to back.
        found.sort(key=lambda identity: matched.entries[identity].number)
        return PackedList(
            Item(
                *identity,
                meta_names[identity],
                self._images.index(matched.entries[identity].archive),
                matched.entries[identity].name,
                wanted[identity][0],
                *wanted[identity][1],
            )
            for identity in found
        )

    def _read_metas(self):
        """Reads what is said of each picture.

        Returns:
            A dict from (dataset, data_key) to the entry of its meta; and one from
            those that are not left out to what `_describe` returns.
        """
        entries = set(self._labels.files)
        metas = sorted(
            e
            for e in entries
            if e.startswith(f"{self._root}meta/") and e.endswith(".json")
        )
        if not metas:
            is_spb_download = any(
                e.removesuffix(".json") in entries and e.endswith(".json")
                for e in entries
            )
            raise InputError(
                f"{self.name}: "
                + (
                    "this is what `spb download` writes, project.json and a JSON "
                    "beside every picture; expected the Suite's Export, with a "
                    if is_spb_download
                    else "expected a "
                )
                + "meta/<dataset>/<data_key>.json for every picture, got none."
            )
        meta_names, wanted, shared = {}, {}, {}
        for meta_name in metas:
            meta = self._load_object(meta_name)
            identity = export_json.identity(
                meta,
                meta_name.removeprefix(f"{self._root}meta/"),
                f"{self.name}: {meta_name}",
            )
            twin = meta_names.setdefault(identity, meta_name)
            if twin is not meta_name:
                raise InputError(
                    f"{self.name}: '{identity[1]}' of dataset '{identity[0]}' is "
                    f"described twice: {twin}, {meta_name}."
                )
            described = self._describe(meta, meta_name, entries)
            if described:
                label_name, common = described
                # One object for all that have the same tags and size.
                wanted[identity] = label_name, shared.setdefault(common, common)
        return meta_names, wanted

    def _describe(self, meta, meta_name, entries):
        """Returns the label that a meta gives; and tags, size and completeness.

        None, and a reason counted, where its picture is left out.
        """
        where = f"{self.name}: {meta_name}"
        status = str(meta.get("status") or "").strip().upper()
        if not status:
            self.assumed["pictures without a status: taken as submitted"] += 1
            status = "SUBMITTED"
        label_name = export_json.label_name(meta, self._root, where)
        is_submitted = status == "SUBMITTED"
        # What was skipped is not for use, whoever asks.
        is_wanted = self._include_unsubmitted and status != "SKIPPED"
        if not is_submitted and not is_wanted:
            self.left_out[f"pictures with status {status:.20}"] += 1
            return None
        if label_name not in entries:
            if is_submitted:
                raise InputError(
                    f"{where} points at {label_name or 'no label'}, which is not in "
                    "the archive."
                )
            label_name = ""
        if export_json.is_in_consensus(meta, where) and not export_json.has_objects(
            label_name and self._load_json(label_name), f"{self.name}: {label_name}"
        ):
            # Its labels are several people's; none is the picture's yet.
            self.left_out["pictures whose consensus label is not decided"] += 1
            return None
        return label_name, (
            export_json.tags(meta, where),
            export_json.labelled_size(meta, where),
            is_submitted,
        )

    def _check_missing(self, wanted, matched):
        """Counts what was found in an odd way, and raises or counts what was not."""
        by_name = len(matched.by_name & wanted.keys())
        if by_name:
            reason = "pictures found by their file name alone, in another folder"
            self.assumed[reason] += by_name
        missing = [_source_id(*i) for i in wanted if i not in matched.entries]
        if missing and not self._skip_missing:
            images = ", ".join(archive.name for archive in self._images)
            raise InputError(
                f"{len(missing)} of {len(wanted)} labelled pictures are not in "
                f"{images}, e.g. {', '.join(missing[:10])} (also looked for with one "
                "more extension, as in a.jpg.jpg); download the pictures again, or "
                "leave these out with --skip_missing."
            )
        if missing:
            self.left_out["labelled pictures that are missing"] += len(missing)


def _group(paths):
    """Lists zips and folders one by one, and pictures with what lies beside as one."""
    loose = [path for path in paths if not archives.is_archive(path)]
    if not any(is_image_name(path.name) for path in loose):
        return paths
    others = set(paths) - set(loose)
    return [*(path for path in paths if path in others), loose]


def _source_id(dataset, key):
    return f"{dataset}/{key}" if dataset else key


def _clip(box, width, height):
    left, top, right, bottom = box
    return (
        min(max(left, 0.0), width),
        min(max(top, 0.0), height),
        min(max(right, 0.0), width),
        min(max(bottom, 0.0), height),
    )
