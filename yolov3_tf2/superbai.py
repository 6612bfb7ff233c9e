"""Reads the two zips that the Superb AI Suite exports: labels and pictures.

The label zip holds `project.json`, `meta/<dataset>/<data_key>.json`, one a picture,
and `labels/<label_id>.json`. It comes in three spellings: legacy (no version;
`class`, `shape.box`), camelCase (0.3: `className`, `annotationType`) and snake_case
(0.4 and later). The picture zip holds `<folder>/<data_key>`, where the Suite usually
appends one more extension: `a.jpg.jpg`. Nothing is extracted to disk.
"""

import json
import math
import zipfile
from collections import Counter
from pathlib import PurePosixPath
from typing import NamedTuple

from yolov3_tf2 import archives, pictures
from yolov3_tf2.errors import InputError
from yolov3_tf2.records import Record


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
        self._labels = archives.open_zip(labels_path)
        self._images = [archives.open_zip(path) for path in images_paths]
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
        encoded = archives.read_entry(item.archive, item.entry)
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
        entries = archives.list_files(self._labels)
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
            names = archives.list_files(archive)
            if not any(map(pictures.is_picture_name, names)):
                raise InputError(
                    f"{archive.filename} holds no pictures among its {len(names)} "
                    "files; expected the image download of the Suite. Are the inputs "
                    "'images' and 'labels' swapped?"
                )
        return min(found, key=lambda e: e.count("/")).removesuffix("project.json")

    def _load_json(self, name):
        text = archives.read_entry(self._labels, name)
        try:
            return json.loads(text.decode("utf-8-sig"))
        except ValueError as error:
            raise InputError(
                f"{self._labels.filename}: malformed JSON in {name}: {error}"
            ) from error

    def _read_items(self):
        name, root = self._labels.filename, self._root
        entries = set(archives.list_files(self._labels))
        metas = sorted(
            e for e in entries if e.startswith(f"{root}meta/") and e.endswith(".json")
        )
        if not metas:
            raise InputError(
                f"{name}: expected a meta/<dataset>/<data_key>.json for every picture, "
                "got none; an `spb download` folder? Use the Export of the Suite."
            )
        index = archives.PictureIndex(self._images, pictures.is_picture_name)
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


def _check_project(project, name):
    kind = project.get("type", "image-default")
    if kind not in ("image-default", "image-siesta") or "object_tracking" in project:
        raise InputError(
            f"{name}: project.json is a '{kind}' project; only image projects can be "
            "converted."
        )


def _read_classes(project, name):
    """Returns the box classes, and a dict of ("id" or "name", value) to their index."""
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
    """Returns (dataset, data_key) of a meta whose own path below meta/ is `path`."""
    folder, _, rest = path.partition("/")
    dataset = str(meta.get("dataset") or folder)
    key = archives.normalise(str(meta.get("data_key") or rest.removesuffix(".json")))
    if ".." in PurePosixPath(key).parts:
        raise InputError(f"meta/{path}: data_key '{key}' leaves the archive.")
    return archives.normalise(dataset), key


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
