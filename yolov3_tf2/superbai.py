"""Reads the two zips that the Superb AI Suite exports: labels and pictures.

The label zip holds `project.json`, `meta/<dataset>/<data_key>.json`, one a picture,
and `labels/<label_id>.json`. It comes in three spellings: legacy (no version;
`class`, `shape.box`), camelCase (0.3: `className`, `annotationType`) and snake_case
(0.4 and later). The picture zip holds `<folder>/<data_key>`, where the Suite usually
appends one more extension: `a.jpg.jpg`. Nothing is extracted to disk.
"""

import hashlib
import json
import math
import unicodedata
import zipfile
from collections import Counter
from pathlib import PurePosixPath
from typing import NamedTuple

from yolov3_tf2 import pictures
from yolov3_tf2.errors import InputError
from yolov3_tf2.records import Record

TRAIN_TAGS = {"train"}
TEST_TAGS = {"test", "validation", "valid", "val"}


class Item(NamedTuple):
    """One labelled picture before it is read.

    Attributes:
        dataset, key: its identity in the Suite; a key alone is not unique.
        meta_name: its entry in the label zip.
        label_name: the entry of its label in the label zip.
        archive, entry: the zip and entry of its picture.
        tags: set of its tags, lower case.
        labelled_size: (width, height) that it was labelled at, None if unknown.
    """

    dataset: str
    key: str
    meta_name: str
    label_name: str
    archive: zipfile.ZipFile
    entry: str
    tags: frozenset[str]
    labelled_size: tuple[int, int] | None

    @property
    def source_id(self):
        """`<dataset>/<key>`."""
        return f"{self.dataset}/{self.key}" if self.dataset else self.key


class Export:
    """The two zips, opened and checked; use as a context manager.

    Attributes:
        class_names: the project's bounding-box classes, in its order.
        items: list of `Item`, in the order of the pictures' zip.
        left_out: Counter of what is not converted, by reason; `read` adds to it.

    Raises:
        InputError: a zip is none, the two are swapped, the project is not of images
            with boxes, or a labelled picture is missing or ambiguous.
    """

    def __init__(self, images_paths, labels_path):
        self.left_out = Counter()
        self._labels = _open_zip(labels_path)
        self._images = [_open_zip(path) for path in images_paths]
        self._root = self._find_root()
        project = self._load_json(self._root + "project.json")
        _check_project(project, self._labels.filename)
        self.class_names, self._class_index = _read_classes(
            project, self._labels.filename
        )
        self.items = self._read_items()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for archive in (self._labels, *self._images):
            archive.close()

    def read(self, item):
        """Reads the label and the picture of an `Item`.

        Returns:
            A `Record`, its boxes in the order of the label, clipped to the picture.

        Raises:
            InputError: the label or the picture cannot be used.
        """
        label = self._load_json(item.label_name)
        boxes, labels = self._read_boxes(label, item.label_name)
        where = f"{item.archive.filename}: {item.entry}"
        encoded = pictures.read_entry(item.archive, item.entry)
        encoded, kind, width, height = pictures.prepare(
            encoded, where, item.labelled_size
        )
        kept = []
        for box, index in zip(boxes, labels, strict=True):
            box = _clip(box, width, height)
            if min(box[2] - box[0], box[3] - box[1]) < 1:
                self.left_out["boxes under one pixel or outside the picture"] += 1
            else:
                kept.append((box, index))
        return Record(
            item.source_id,
            encoded,
            kind,
            width,
            height,
            [box for box, _ in kept],
            [index for _, index in kept],
        )

    def _find_root(self):
        """Finds `project.json`, and with it a folder that wraps the whole export."""
        name = self._labels.filename
        entries = _entries(self._labels)
        found = [e for e in entries if PurePosixPath(e).name == "project.json"]
        if not found:
            has_pictures = any(map(pictures.is_picture_name, entries))
            raise InputError(
                f"{name} holds {'pictures' if has_pictures else 'other files'} and no "
                "project.json: "
                + (
                    "are the inputs 'images' and 'labels' swapped?"
                    if has_pictures
                    else "expected the label export of the Suite (Export, then "
                    "Export history)."
                )
            )
        for archive in self._images:
            names = _entries(archive)
            if not any(map(pictures.is_picture_name, names)):
                raise InputError(
                    f"{archive.filename} holds no pictures among its {len(names)} "
                    "files; expected the image download of the Suite. Are the inputs "
                    "'images' and 'labels' swapped?"
                )
        return min(found, key=lambda e: e.count("/")).removesuffix("project.json")

    def _load_json(self, name):
        text = pictures.read_entry(self._labels, name)
        try:
            return json.loads(text.decode("utf-8-sig"))
        except ValueError as error:
            raise InputError(
                f"{self._labels.filename}: malformed JSON in {name}: {error}"
            ) from error

    def _read_items(self):
        name, root = self._labels.filename, self._root
        entries = set(_entries(self._labels))
        metas = sorted(
            e for e in entries if e.startswith(f"{root}meta/") and e.endswith(".json")
        )
        if not metas:
            raise InputError(
                f"{name}: expected a meta/<dataset>/<data_key>.json for every picture, "
                "got none; an `spb download` folder? Use the Export of the Suite."
            )
        index = _PictureIndex(self._images)
        by_identity, missing = {}, []
        for meta_name in metas:
            meta = self._load_json(meta_name)
            status = str(meta.get("status") or "SUBMITTED").upper()
            if status != "SUBMITTED":
                self.left_out[f"pictures with status {status}"] += 1
                continue
            dataset, key = _identity(meta, meta_name.removeprefix(f"{root}meta/"))
            twin = by_identity.get((dataset, key))
            if twin:
                raise InputError(
                    f"{name}: '{key}' of dataset '{dataset}' is described twice: "
                    f"{twin.meta_name}, {meta_name}."
                )
            label_name = root + next(iter(meta.get("label_path") or []), "")
            if label_name not in entries:
                raise InputError(
                    f"{name}: {meta_name} points at {label_name or 'no label'}, which "
                    "is not in the archive."
                )
            found = index.find(dataset, key)
            if found is None:
                missing.append(f"{dataset}/{key}")
                continue
            by_identity[dataset, key] = Item(
                dataset,
                key,
                meta_name,
                label_name,
                *found,
                _tags(meta),
                _labelled_size(meta),
            )
        images = ", ".join(archive.filename for archive in self._images)
        if missing:
            raise InputError(
                f"{len(missing)} of {len(metas)} labelled pictures are not in "
                f"{images}, e.g. {', '.join(missing[:10])} (also looked for with one "
                "more extension, as in a.jpg.jpg); download the pictures again."
            )
        items = list(by_identity.values())
        index.check_used_once(items)
        unlabelled = index.num_entries - len(items)
        if unlabelled:
            self.left_out["pictures without a submitted label"] += unlabelled
        # In the order of the zip: reading runs through it once, from front to back.
        items.sort(key=lambda item: index.position(item))
        return items

    def _read_boxes(self, label, name):
        """Returns xyxy boxes in pixels, unclipped, and class indices of a label."""
        # Null, {} and no objects: a picture that was submitted without any object.
        label = label or {}
        label = label.get("result", label) or {}
        boxes, labels = [], []
        for number, thing in enumerate(label.get("objects") or [], start=1):
            where = f"{self._labels.filename}: {name} object {number}"
            shape = thing.get("shape") or {}
            kind = thing.get("annotation_type") or thing.get("annotationType")
            kind = kind or next(iter(shape), "unknown")
            if kind != "box":
                self.left_out[f"objects of type {kind}"] += 1
                continue
            class_id = thing.get("class_id", thing.get("classId"))
            class_name = thing.get("class_name", thing.get("className"))
            class_name = class_name or thing.get("class")
            index = self._class_index.get(("id", str(class_id)))
            if index is None:
                index = self._class_index.get(("name", class_name))
            if index is None:
                raise InputError(
                    f"{where}: class {class_name!r} (id {class_id}) is not in "
                    f"project.json (known: {', '.join(self.class_names)}); was it "
                    "renamed or deleted after the export?"
                )
            coord = shape.get("box") or (thing.get("annotation") or {}).get("coord")
            boxes.append(_box(coord or {}, where))
            labels.append(index)
        return boxes, labels


def split_items(items, test_fraction):
    """Splits items into training and test by their tags, or by their names.

    Where a picture carries a tag `test`, `validation` or `train`, the tags decide, and
    a picture without one is for training. Where none does, `test_fraction` of them
    are taken by a hash of their names: the same ones in every run.

    Returns:
        A dict of lists: `train` and `test`, in the order of `items`; and a sentence on
        how they were split.

    Raises:
        InputError: a picture has tags of both, or a split is left empty.
    """
    is_test = set()
    for item in items:
        if item.tags & TEST_TAGS:
            if item.tags & TRAIN_TAGS:
                raise InputError(
                    f"{item.source_id} has the tags {', '.join(sorted(item.tags))}: "
                    "keep either 'train' or 'test'."
                )
            is_test.add(item.source_id)
    how = "split by the tags of the pictures"
    if not any(item.tags & (TRAIN_TAGS | TEST_TAGS) for item in items):
        by_hash = sorted(
            items, key=lambda i: hashlib.sha256(i.source_id.encode()).digest()
        )
        number = max(1, round(test_fraction * len(items)))
        is_test = {item.source_id for item in by_hash[:number]}
        how = (
            f"no picture is tagged 'train' or 'test': {test_fraction:.0%} taken for "
            "testing by a hash of their names"
        )
    splits = {
        "train": [item for item in items if item.source_id not in is_test],
        "test": [item for item in items if item.source_id in is_test],
    }
    for split, members in splits.items():
        if not members:
            raise InputError(
                f"no pictures left for {split} (of {len(items)}, {how}); tag some "
                f"'{split}' in the Suite, or remove all 'train' and 'test' tags."
            )
    return splits, how


class _PictureIndex:
    """Finds the picture of a (dataset, data_key) among the entries of the zips."""

    def __init__(self, archives):
        self._by_name = {}
        self._position = {}
        for archive in archives:
            for entry in _entries(archive):
                if not pictures.is_picture_name(entry):
                    continue
                self._position[archive, entry] = len(self._position)
                path = _normalise(entry)
                base = PurePosixPath(path)
                # Under its name and its name without the extension that the Suite
                # may have appended.
                for name in {base.name, base.stem}:
                    self._by_name.setdefault(name, []).append((archive, entry, path))
        self.num_entries = len(self._position)

    def position(self, item):
        """The place of an item's picture in the order of the zips."""
        return self._position[item.archive, item.entry]

    def find(self, dataset, key):
        """Returns (archive, entry), or None where there is no such picture.

        Raises:
            InputError: several entries fit equally well.
        """
        ranked = {}
        for archive, entry, path in self._by_name.get(PurePosixPath(key).name, ()):
            for rank, name in enumerate((f"{dataset}/{key}", key)):
                for extra, ending in enumerate((path, path[: path.rfind(".")])):
                    if f"/{ending}".endswith(f"/{name}"):
                        ranked.setdefault((rank, extra), []).append((archive, entry))
        if not ranked:
            return None
        best = ranked[min(ranked)]
        if len(best) > 1:
            raise InputError(
                f"'{key}' of dataset '{dataset}' matches {len(best)} pictures: "
                + ", ".join(f"{a.filename}: {e}" for a, e in best)
            )
        return best[0]

    def check_used_once(self, items):
        """Raises an `InputError` if two items have the same picture."""
        used = {}
        for item in items:
            other = used.setdefault((item.archive, item.entry), item)
            if other is not item:
                raise InputError(
                    f"{item.archive.filename}: {item.entry} is the picture of both "
                    f"{other.source_id} and {item.source_id}; expected one for each."
                )


def _open_zip(path):
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        with path.open("rb") as file:
            start = file.read(12)
        raise InputError(
            f"{path} is not a zip archive (starts with {start!r}, {error}): the "
            "download is cut off, or its link had expired; export again."
        ) from error


def _entries(archive):
    """Names of the files in a zip, without folders and what macOS adds."""
    return [
        name
        for name in archive.namelist()
        if not name.endswith("/") and not pictures.is_hidden(name)
    ]


def _check_project(project, name):
    kind = project.get("type", "image-default")
    if kind not in ("image-default", "image-siesta") or "object_tracking" in project:
        raise InputError(
            f"{name}: project.json is a '{kind}' project; only image projects can be "
            "converted."
        )


def _read_classes(project, name):
    """Returns the box classes' names, and a dict of ("id" or "name", value) to index."""
    if "object_detection" in project:
        found = [
            (thing.get("name"), thing.get("id"), thing.get("annotation_type"))
            for thing in project["object_detection"].get("object_classes") or []
        ]
    else:
        found = [
            (thing.get("class_name"), thing.get("class_id"), kind)
            for thing in project.get("objects") or []
            for kind in (thing.get("info") or {}).get("shapes") or {}
        ]
    names, index = [], {}
    for class_name, class_id, kind in found:
        if kind != "box":
            continue
        class_name = str(class_name or "").strip()
        if not class_name or "\n" in class_name:
            raise InputError(f"{name}: project.json has a class named {class_name!r}.")
        if class_name in names:
            raise InputError(
                f"{name}: two box classes are both named '{class_name}'; rename one in "
                "the Suite."
            )
        index["id", str(class_id)] = index["name", class_name] = len(names)
        names.append(class_name)
    if not names:
        kinds = Counter(kind for _, _, kind in found)
        listed = ", ".join(f"{kind} {number}" for kind, number in kinds.items())
        raise InputError(
            f"{name}: the project has no bounding-box class (found: "
            f"{listed or 'none at all'})."
        )
    return names, index


def _identity(meta, path):
    """Returns (dataset, data_key) of a meta, normalised; `path` is its own below meta/."""
    folder, _, rest = path.partition("/")
    dataset = str(meta.get("dataset") or folder)
    key = _normalise(str(meta.get("data_key") or rest.removesuffix(".json")))
    if ".." in PurePosixPath(key).parts:
        raise InputError(f"meta/{path}: data_key '{key}' leaves the archive.")
    return _normalise(dataset), key


def _normalise(path):
    """One spelling of a path: forward slashes, none in front, composed characters."""
    path = unicodedata.normalize("NFC", path.replace("\\", "/"))
    return "/".join(part for part in path.split("/") if part)


def _tags(meta):
    names = [
        tag.get("name", "") if isinstance(tag, dict) else tag
        for tag in meta.get("tags") or []
    ]
    return frozenset(str(name).strip().lower() for name in names)


def _labelled_size(meta):
    info = meta.get("image_info") or {}
    width, height = info.get("width"), info.get("height")
    return (int(width), int(height)) if width and height else None


def _box(coord, where):
    """Returns xyxy of a coord of x, y (left, top), width and height, pixels."""
    values = []
    for side in ("x", "y", "width", "height"):
        value = coord.get(side)
        if value is None:
            raise InputError(f"{where}: the box has no '{side}'.")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InputError(f"{where}: {side} {value!r} is not a number.")
        if not math.isfinite(value):
            raise InputError(f"{where}: {side} is {value}, which is not finite.")
        values.append(float(value))
    x, y, width, height = values
    # A negative size is a box drawn from the other corner.
    left, right = sorted((x, x + width))
    top, bottom = sorted((y, y + height))
    return left, top, right, bottom


def _clip(box, width, height):
    left, top, right, bottom = box
    return (
        min(max(left, 0.0), width),
        min(max(top, 0.0), height),
        min(max(right, 0.0), width),
        min(max(bottom, 0.0), height),
    )
