"""Small exports of the Suite for tests, in each of its three spellings.

`build` returns the entries of both zips as dicts from name to content: bytes as they
are, anything else as JSON. A test bends these dicts before `open_export` writes them.
"""

import hashlib
import io
import json
import struct
import zipfile
from functools import cache

from PIL import Image

from superbai.export import Export
from superbai.export_json import check_repeated_classes
from yolov3_tf2.errors import InputError

SPELLINGS = ("legacy", "0.3.1", "0.6.5")
GENERATIONS = (*SPELLINGS, "0.4.7")  # Its keys are the newer ones, its polygons not.
CLASSES = (("car", "box"), ("person", "box"), ("road", "polygon"))
WIDTH, HEIGHT = 64, 48
# An orientation of 6, and a text where the resolution should be a number.
ODD_EXIF = b"Exif\0\0II*\0" + struct.pack(
    "<IHHHIHHHHI4sI", 8, 2, 0x0112, 3, 1, 6, 0, 0x011A, 2, 4, b"abc\0", 0
)
_TRIANGLE = ((0, 0), (9, 0), (9, 9))


@cache
def encoded_image(colour=(90, 120, 150), kind="JPEG", size=(WIDTH, HEIGHT)):
    """The bytes of an image of one colour."""
    return encode(Image.new("RGB", size, colour), kind)


def encode(image, kind, **options):
    """The bytes of a `PIL.Image.Image`."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def box(x, y, width, height, name="car"):
    """An object with a box, pixels of its left upper corner and its size."""
    coord = {"x": x, "y": y, "width": width, "height": height}
    return {"name": name, "kind": "box", "coord": coord}


def shape(kind, name="road", coord=None):
    """An object that is neither box nor polygon nor rotated box; nobody reads it."""
    return {"name": name, "kind": kind, "coord": coord or {"points": []}}


def polygon(*points, name="road"):
    """An object with a polygon of (x, y), a triangle if there are none."""
    points = [{"x": x, "y": y} for x, y in points or _TRIANGLE]
    return {"name": name, "kind": "polygon", "coord": points}


def rotated(cx, cy, width, height, angle, name="car"):
    """An object with a box that is rotated by an angle in degrees."""
    coord = {"cx": cx, "cy": cy, "width": width, "height": height, "angle": angle}
    return {"name": name, "kind": "rbox", "coord": coord}


def labelled(
    key,
    *things,
    dataset="ds",
    entry=None,
    encoded=None,
    tags=(),
    status="SUBMITTED",
    size=None,
):
    """A labelled image: what `build` takes a list of.

    Args:
        key: its data key.
        *things: its objects, of `box` and `shape`.
        entry: its name in the zip of images, as the Suite does it if None.
        encoded: the bytes of its file, an image of one colour if None.
        size: (width, height) as its image_info, which is empty if None.
    """
    return {
        "key": key,
        "things": things,
        "dataset": dataset,
        "entry": entry or f"{dataset}/{key}.jpg",
        "encoded": encoded or encoded_image(),
        "tags": list(tags),
        "status": status,
        "image_info": dict(zip(("width", "height"), size or (), strict=False)),
    }


def build(items, spelling="0.6.5", classes=CLASSES):
    """Returns the entries of the zip of images, and those of the zip of labels.

    The label of the first image is `labels/0.json`, that of the second is
    `labels/1.json`.
    """
    images = {item["entry"]: item["encoded"] for item in items}
    labels = {"project.json": project(spelling, classes), "meta/": b"", "labels/": b""}
    for number, item in enumerate(items):
        label = f"labels/{number}.json"
        labels[meta_name(item["key"], item["dataset"])] = {
            "data_key": item["key"],
            "dataset": item["dataset"],
            "image_info": item["image_info"],
            "label_id": str(number),
            "label_path": [label],
            "tags": item["tags"],
            "status": item["status"],
        }
        objects = [_object(thing, spelling, classes) for thing in item["things"]]
        content = {"objects": objects, "categories": {}}
        labels[label] = {"result": content} if spelling == "legacy" else content
    return images, labels


def build_download(items, spelling="0.6.5", classes=CLASSES):
    """Returns the entries of the folder that `superb download` writes.

    What `build` has in a meta, in its label and as an image is `<dataset>/<key>` and a
    JSON beside it; the extension that the zip of images adds is not there.
    """
    _, labels = build(items, spelling, classes)
    entries = {"project.json": labels["project.json"]}
    for number, item in enumerate(items):
        path = f"{item['dataset']}/{item['key'].lstrip('/')}"
        entries[f"{path}.json"] = {
            "id": str(number),
            "status": item["status"],
            "tags": [{"name": tag} for tag in item["tags"]],
            "workapp": "IMAGE_SIESTA",
            "result": labels[f"labels/{number}.json"],
            "dataset": item["dataset"],
            "data_key": item["key"],
        }
        entries[path] = item["encoded"]
    return entries


def meta_name(key, dataset="ds"):
    """The entry of an image's meta in the zip of labels."""
    return f"meta/{dataset}/{key.lstrip('/')}.json"


def project(spelling="0.6.5", classes=CLASSES):
    """The content of `project.json` with `classes`, pairs of name and type."""
    if spelling == "legacy":
        objects = [
            {"class_name": name, "class_id": number, "info": {"shapes": {kind: {}}}}
            for number, (name, kind) in enumerate(classes)
        ]
        return {"groups": [], "objects": objects}
    object_classes = [
        {"id": f"id-{number}", "name": name, "annotation_type": kind}
        for number, (name, kind) in enumerate(classes)
    ]
    return {
        "type": "image-siesta",
        "version": spelling,
        "data_type": "image",
        "object_detection": {"object_classes": object_classes},
    }


def write_zip(path, entries, compression=zipfile.ZIP_DEFLATED):
    """Writes a zip of `entries` and returns its path."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(
                name, content if isinstance(content, bytes) else _json(content)
            )
    return path


def write_raw_zip(path, entries, extra=b""):
    """Writes a zip whose names are bytes of an encoding that is not declared.

    Args:
        entries: dict from the bytes of a name, at least 8, to its content.
        extra: the extra field of every entry.
    """
    places = {}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for raw, content in entries.items():
            place = hashlib.sha256(raw).hexdigest() * (1 + len(raw) // 64)
            places[place[: len(raw)].encode()] = raw
            entry = zipfile.ZipInfo(place[: len(raw)])
            entry.extra = extra
            content = content if isinstance(content, bytes) else _json(content)
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED)
    written = path.read_bytes()
    for place, raw in places.items():
        written = written.replace(place, raw)
    path.write_bytes(written)
    return path


def open_export(folder, images, labels, **options):
    """Writes `images.zip` and `labels.zip` into a folder and opens them."""
    return Export(
        [write_zip(folder / "images.zip", images)],
        write_zip(folder / "labels.zip", labels),
        **options,
    )


def read_items(export):
    """Returns the records of an open export by their `source_id`."""
    records = [export.read(item) for item in export.items]
    check_repeated_classes(export.notes.repeated, export.name)
    return {record.source_id: record for record in records if record}


def read_all(folder, images, labels, **options):
    """Returns the records of an export by their `source_id`, and what was left out."""
    with open_export(folder, images, labels, **options) as export:
        for _, reason in export.notes.unreadable:
            raise InputError(reason)
        return read_items(export), export.notes.left_out


def _json(content):
    return json.dumps(content, ensure_ascii=False).encode()


def _object(thing, spelling, classes):
    name, kind, coord = thing["name"], thing["kind"], thing["coord"]
    if spelling == "legacy":
        return {"id": 1, "class": name, "shape": {kind: coord}}
    class_id = "id-unknown"
    if (name, kind) in classes:
        class_id = f"id-{classes.index((name, kind))}"
    keys = ("class_id", "class_name", "annotation_type")
    if spelling == "0.3.1":
        keys = ("classId", "className", "annotationType")
    inner = coord
    if kind == "polygon":
        # Since 0.6 a list of parts, each a list of an outline and its holes.
        inner = {"points": [[coord]] if spelling == "0.6.5" else coord}
    values = zip(keys, (class_id, name, kind), strict=True)
    return {**dict(values), "annotation": {"coord": inner}}
