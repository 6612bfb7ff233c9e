"""Reads the two zips that the Superb AI Suite exports: labels and pictures.

The label zip holds `project.json`, `meta/<dataset>/<data_key>.json`, one a picture,
and `labels/<label_id>.json`. It comes in three spellings: legacy (no version;
`class`, `shape.box`), camelCase (0.3: `className`, `annotationType`) and snake_case
(0.4 and later). The picture zip holds `<folder>/<data_key>`, where the Suite usually
appends one more extension: `a.jpg.jpg`. Nothing is extracted to disk.
"""

import json
import zipfile
from collections import Counter
from pathlib import PurePosixPath
from typing import NamedTuple

from yolov3_tf2 import archives, pictures, suite_json
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
        project = self._load_object(self._root + "project.json")
        suite_json.check_project(project, self._labels.filename)
        self.class_names, self._class_index = suite_json.read_classes(
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
        boxes, labels, others = suite_json.read_objects(
            self._load_json(item.label_name),
            self._class_index,
            f"{self._labels.filename}: {item.label_name}",
        )
        self.left_out.update(f"objects of type {kind}" for kind in others)
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
            names = [PurePosixPath(e).name for e in archives.list_files(archive)]
            if "project.json" in names or not names:
                raise InputError(
                    f"{archive.filename} holds "
                    f"{'a label export' if names else 'no files'}; expected the image "
                    "download of the Suite. Are the inputs 'images' and 'labels' "
                    "swapped?"
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

    def _load_object(self, name):
        where = f"{self._labels.filename}: {name}"
        return suite_json.as_dict(self._load_json(name), where)

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
        index = archives.PictureIndex(self._images)
        by_identity, missing, skipped = {}, [], 0
        for meta_name in metas:
            where = f"{name}: {meta_name}"
            meta = self._load_object(meta_name)
            status = str(meta.get("status") or "SUBMITTED").upper()
            label_name = suite_json.label_name(meta, root, where)
            if status != "SUBMITTED":
                self.left_out[f"pictures with status {status}"] += 1
                skipped += 1
                continue
            dataset, key = suite_json.identity(
                meta, meta_name.removeprefix(f"{root}meta/"), where
            )
            twin = by_identity.get((dataset, key))
            if twin:
                raise InputError(
                    f"{name}: '{key}' of dataset '{dataset}' is described twice: "
                    f"{twin.meta_name}, {meta_name}."
                )
            if label_name not in entries:
                raise InputError(
                    f"{where} points at {label_name or 'no label'}, which is not in "
                    "the archive."
                )
            in_consensus = suite_json.is_in_consensus(meta, where)
            if in_consensus and not self._load_json(label_name):
                # Its labels are several people's; none is the picture's yet.
                self.left_out["pictures whose consensus label is not decided"] += 1
                skipped += 1
                continue
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
                suite_json.tags(meta, where),
                suite_json.labelled_size(meta, where),
            )
        images = ", ".join(archive.filename for archive in self._images)
        if missing:
            raise InputError(
                f"{len(missing)} of {len(missing) + len(by_identity)} labelled "
                f"pictures are not in {images}, e.g. {', '.join(missing[:10])} (also "
                "looked for with one more extension, as in a.jpg.jpg); download the "
                "pictures again."
            )
        items = list(by_identity.values())
        if not items:
            raise InputError(
                f"{name}: none of its {len(metas)} labels can be used ("
                + ", ".join(f"{n} {why}" for why, n in self.left_out.items())
                + "); submit some in the Suite, then export again."
            )
        index.check_used_once(items)
        stored = sum(
            pictures.is_picture_name(entry)
            for archive in self._images
            for entry in archives.list_files(archive)
        )
        if stored > len(items) + skipped:
            unlabelled = stored - len(items) - skipped
            self.left_out["pictures without a label"] += unlabelled
        # In the order of the zip: reading runs through it once, from front to back.
        items.sort(key=index.position)
        return items


def _clip(box, width, height):
    left, top, right, bottom = box
    return (
        min(max(left, 0.0), width),
        min(max(top, 0.0), height),
        min(max(right, 0.0), width),
        min(max(bottom, 0.0), height),
    )
