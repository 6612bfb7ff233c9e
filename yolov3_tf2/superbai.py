"""Reads the two downloads of the Superb AI Suite: labels and pictures.

The label zip holds `project.json`, `meta/<dataset>/<data_key>.json`, one a picture,
and `labels/<label_id>.json`. It comes in three spellings: legacy (no version;
`class`, `shape.box`), camelCase (0.3: `className`, `annotationType`) and snake_case
(0.4 and later). The picture zip holds `<folder>/<data_key>`, where the Suite usually
appends one more extension: `a.jpg.jpg`. Nothing is extracted to disk.
"""

import json
import re
import zipfile
from collections import Counter
from pathlib import PurePosixPath
from typing import NamedTuple

from yolov3_tf2 import archives, pictures, suite_json
from yolov3_tf2.errors import InputError
from yolov3_tf2.picture_index import PictureIndex

# The largest label known has 5 MB; one of this size takes a few hundred in memory.
MAX_JSON_BYTES = 32 * 2**20
# What a rounding or a careless hand explains, pixels outside the picture.
_CARELESS_PX = 2


class Item(NamedTuple):
    """One labelled picture before it is read.

    Attributes:
        dataset, key: its identity in the Suite; a key alone is not unique.
        meta_name: its entry in the labels.
        label_name: the entry of its label in the labels.
        archive, entry: the archive and entry of its picture.
        tags: set of its tags, lower case.
        labelled_size: (width, height) that it was labelled at, None if unknown.
        is_submitted: whether its label was submitted, and so is complete.
    """

    dataset: str
    key: str
    meta_name: str
    label_name: str
    archive: archives.Zip | archives.Folder
    entry: str
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
        items: list of `Item`, in the order of the pictures' archives.
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
        self._kinds = ("box", *(suite_json.CORNERED if polygons_as_boxes else ()))
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

    def read(self, item):
        """Reads the label and the picture of an `Item`.

        Returns:
            A `Record`, its boxes in the order of the label, clipped to the picture;
            None where the label is not submitted and has no object yet.

        Raises:
            InputError: the label or the picture cannot be used.
        """
        label = suite_json.read_objects(
            self._load_json(item.label_name),
            self._class_index,
            self._kinds,
            f"{self.name}: {item.label_name}",
        )
        if not item.is_submitted and not label.boxes:
            self.left_out["pictures not submitted, without an object so far"] += 1
            return None
        where = f"{item.archive.name}: {item.entry}"
        picture = pictures.prepare(
            item.archive.read(item.entry), where, item.labelled_size
        )
        self.left_out.update(label.left_out)
        if picture.is_guess:
            self.assumed[
                "turned photographs of unknown labelled size: their boxes taken as "
                "drawn on what a browser shows"
            ] += 1
        changes = Counter(
            {
                "boxes with a negative size turned round": label.turned,
                "boxes drawn around polygons and rotated boxes": label.outlined,
            }
        )
        boxes, labels = [], []
        for box, index in zip(label.boxes, label.labels, strict=True):
            clipped = _clip(box, picture.width, picture.height)
            if min(clipped[2] - clipped[0], clipped[3] - clipped[1]) < 1:
                self.left_out["boxes under one pixel or outside the picture"] += 1
                continue
            outside = max(abs(a - b) for a, b in zip(box, clipped, strict=True))
            changes["boxes clipped to the picture"] += outside > 0
            self.far_outside += outside > _CARELESS_PX
            boxes.append(clipped)
            labels.append(index)
        self.changed.update({name: n for name, n in changes.items() if n})
        return Record(
            item.source_id,
            picture.encoded,
            picture.format,
            picture.width,
            picture.height,
            boxes,
            labels,
        )

    def _open_archive(self, path):
        archive = archives.open_archive(path)
        self._open.append(archive)
        return archive

    def _read_project(self):
        project = self._load_object(self._root + "project.json")
        suite_json.check_project(project, self.name)
        assumption = suite_json.assumption(project)
        if assumption:
            self.assumed[assumption] += 1
        names, index, shared = suite_json.read_classes(project, self.name, self._kinds)
        for name in shared:
            reason = f"class name of several types, '{name}': taken as one class"
            self.assumed[reason] += 1
        return names, index

    def _find_root(self):
        """Finds `project.json`, and with it a folder that wraps the whole export."""
        entries = self._labels.files
        found = [e for e in entries if PurePosixPath(e).name == "project.json"]
        if not found:
            has_pictures = any(map(pictures.is_picture_name, entries))
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
            names = {PurePosixPath(e).name for e in archive.files}
            if "project.json" in names or not names:
                raise InputError(
                    f"{archive.name} holds "
                    f"{'a label export' if names else 'no files'}; expected the image "
                    "download of the Suite. Are the inputs 'images' and 'labels' "
                    "swapped?"
                )
        return min(found, key=lambda e: e.count("/")).removesuffix("project.json")

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
        return suite_json.as_dict(self._load_json(name), f"{self.name}: {name}")

    def _read_items(self):
        entries = set(self._labels.files)
        metas = sorted(
            e
            for e in entries
            if e.startswith(f"{self._root}meta/") and e.endswith(".json")
        )
        if not metas:
            jsons = [e for e in entries if e.endswith(".json")]
            raise InputError(
                f"{self.name}: "
                + (
                    "this is what `spb download` writes, project.json and a JSON "
                    "beside every picture; expected the Suite's Export, with a "
                    if len(jsons) > 1
                    else "expected a "
                )
                + "meta/<dataset>/<data_key>.json for every picture, got none."
            )
        identities, wanted, skipped = {}, [], 0
        for meta_name in metas:
            meta = self._load_object(meta_name)
            dataset, key = suite_json.identity(
                meta,
                meta_name.removeprefix(f"{self._root}meta/"),
                f"{self.name}: {meta_name}",
            )
            twin = identities.setdefault((dataset, key), meta_name)
            if twin is not meta_name:
                raise InputError(
                    f"{self.name}: '{key}' of dataset '{dataset}' is described twice: "
                    f"{twin}, {meta_name}."
                )
            described = self._describe(meta, meta_name, entries)
            if described:
                wanted.append((dataset, key, meta_name, *described))
            else:
                skipped += 1
        index = PictureIndex(self._images)
        items = self._find_pictures(index, wanted, identities)
        if not items:
            raise InputError(
                f"{self.name}: none of its {len(metas)} labels can be used ("
                + ", ".join(f"{n} {why}" for why, n in self.left_out.items())
                + "); submit some in the Suite, then export again."
            )
        index.check_used_once(items)
        self._count_others(items, skipped)
        # In the order of the archives: a zip is read once, from front to back.
        items.sort(key=index.position)
        return items

    def _describe(self, meta, meta_name, entries):
        """Returns the label, tags, size and completeness that a meta gives.

        None, and a reason counted, where its picture is left out.
        """
        where = f"{self.name}: {meta_name}"
        status = str(meta.get("status") or "").strip().upper()
        if not status:
            self.assumed["pictures without a status: taken as submitted"] += 1
            status = "SUBMITTED"
        label_name = suite_json.label_name(meta, self._root, where)
        is_submitted = status == "SUBMITTED"
        # What was skipped is not for use, whoever asks.
        is_wanted = self._include_unsubmitted and status != "SKIPPED"
        if not is_submitted and not is_wanted:
            self.left_out[f"pictures with status {status:.20}"] += 1
            return None
        if label_name not in entries:
            raise InputError(
                f"{where} points at {label_name or 'no label'}, which is not in the "
                "archive."
            )
        if suite_json.is_in_consensus(meta, where) and not self._load_json(label_name):
            # Its labels are several people's; none is the picture's yet.
            self.left_out["pictures whose consensus label is not decided"] += 1
            return None
        return (
            label_name,
            suite_json.tags(meta, where),
            suite_json.labelled_size(meta, where),
            is_submitted,
        )

    def _find_pictures(self, index, wanted, identities):
        """Returns the items of what is wanted, each with its picture."""
        named = Counter(PurePosixPath(key).name for _, key in identities)
        items, missing = [], []
        for dataset, key, meta_name, label_name, *rest in wanted:
            found = index.find(dataset, key)
            if found is None and named[PurePosixPath(key).name] == 1:
                found = index.find_by_name(key)
                if found:
                    self.assumed[
                        "pictures found by their file name alone, in another folder"
                    ] += 1
            if found:
                items.append(Item(dataset, key, meta_name, label_name, *found, *rest))
            else:
                missing.append(_source_id(dataset, key))
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
        return items

    def _count_others(self, items, skipped):
        """Counts the files among the pictures that no label describes.

        Args:
            items: what is converted.
            skipped: number of labels that are left out, whose pictures may lie here.
        """
        used = {(item.archive, item.entry) for item in items}
        rest = [
            entry
            for archive in self._images
            for entry in archive.files
            if (archive, entry) not in used
        ]
        unlabelled = sum(map(pictures.is_picture_name, rest))
        if unlabelled > skipped:
            self.left_out["pictures without a label"] += unlabelled - skipped
        if len(rest) > unlabelled:
            self.left_out["files that are no pictures"] += len(rest) - unlabelled


def _group(paths):
    """Lists zips and folders one by one, and pictures with what lies beside as one."""
    loose = [
        path
        for path in paths
        if path.is_file() and path.suffix != ".zip" and not zipfile.is_zipfile(path)
    ]
    if not any(pictures.is_picture_name(path.name) for path in loose):
        return paths
    return [*(path for path in paths if path not in set(loose)), loose]


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
