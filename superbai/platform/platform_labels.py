"""What Superb AI's new platform has frozen, in the form of an export of the Suite.

Pure functions from parsed JSON to what `export_json` and `label_json` read: project,
metas and labels, so that one converter serves both products.
"""

import re
from collections import Counter
from typing import NamedTuple

from yolov3_tf2.errors import InputError
from yolov3_tf2.files.json_values import as_dict, as_dicts, as_list, as_number
from yolov3_tf2.names import normalise_path

_VERSION = "0.6.5"
# The annotation types of the Suite that have another name on the platform.
_TYPES = {"bbox": "box"}
_MODEL = "model"


class Shapes(NamedTuple):
    """The shapes of an image that count.

    Attributes:
        used: list of the platform's dicts.
        num_of_models: number of those left out because a model has drawn them.
    """

    used: list
    num_of_models: int


def select_shapes(detail, where, *, with_models):
    """Returns the `Shapes` of a frozen image.

    Args:
        detail: the platform's description of the image, a dict.
        where: what to call the image in an error.
        with_models: whether to use the shapes that a model has drawn, too.
    """
    shapes = as_dicts(detail.get("shapes"), where, "shape", optional=True)
    used = [each for each in shapes if with_models or each.get("source") != _MODEL]
    return Shapes(used, len(shapes) - len(used))


def make_project(classes, used=()):
    """Returns the project.json of an export.

    Args:
        classes: list of the platform's classes, dicts. The platform keeps no order of
            them, so they are sorted by name.
        used: set of (class id, the platform's annotation type) that shapes have.
            Archived classes are left out unless they are used.
    """
    types_of = {}
    for class_id, kind in used:
        types_of.setdefault(class_id, set()).add(kind)
    object_classes = []
    for each in sorted(classes, key=lambda c: (str(c.get("name")), str(c.get("id")))):
        class_id = str(each.get("id"))
        allowed = (
            set() if each.get("archived") else set(each.get("allowed_types") or ())
        )
        # A type may have been forbidden after some of it was drawn.
        for kind in sorted(allowed | types_of.get(class_id, set())):
            object_classes.append(
                {
                    "id": class_id,
                    "name": each.get("name"),
                    "annotation_type": _TYPES.get(kind, kind),
                }
            )
    return {
        "type": "image-siesta",
        "version": _VERSION,
        "data_type": "image",
        "object_detection": {"object_classes": object_classes},
    }


def make_meta(asset, dataset, key):
    """Returns the meta of an image, and the entries of the meta and of its label.

    Args:
        asset: the platform's description of the image, a dict.
        dataset, key: its names in the export.
    """
    label_name = f"labels/{asset['asset_id']}.json"
    meta = {
        "data_key": key,
        "dataset": dataset,
        "image_info": {"width": asset.get("width"), "height": asset.get("height")},
        "label_id": asset["asset_id"],
        "label_path": [label_name],
        "tags": [{"name": tag} for tag in asset.get("tags") or ()],
        "status": "SUBMITTED",
    }
    return meta, f"meta/{dataset}/{key}.json", label_name


def make_label(shapes, names, where):
    """Returns the label of an image.

    Args:
        shapes: list of the platform's shapes, dicts.
        names: dict from class id to name.
        where: what to call the image in an error.

    Raises:
        InputError: the geometry of a box or polygon is not in the platform's format.
    """
    objects, categories = [], []
    for shape in shapes:
        kind, class_id = str(shape.get("type")), str(shape.get("class_id"))
        here = f"{where} shape {shape.get('id')}"
        if kind == "classification":
            categories.append({"property_id": class_id})
            continue
        geometry = as_dict(shape.get("geometry"), f"{here}: geometry")
        objects.append(
            {
                "id": shape.get("id"),
                "class_id": class_id,
                "class_name": names.get(class_id, ""),
                "annotation_type": _TYPES.get(kind, kind),
                "annotation": {"coord": _COORDS.get(kind, _others)(geometry, here)},
                "properties": [],
            }
        )
    return {"objects": objects, "categories": {"properties": categories}}


def _box(geometry, where):
    missing = [name for name in "xywh" if name not in geometry]
    if missing:
        raise InputError(
            f"{where}: expected a box with x, y, w and h, got none for "
            f"{', '.join(missing)}."
        )
    numbers = [as_number(geometry[name], f"{where}: {name}") for name in "xywh"]
    return dict(zip(("x", "y", "width", "height"), numbers, strict=True))


def _polygon(geometry, where):
    """Returns the parts of a polygon: each an outline, then its holes."""
    parts = as_dicts(geometry.get("polygons"), where, "polygon")
    return {
        "points": [
            [
                [_point(point, where) for point in as_list(ring, where)]
                for ring in (part.get("exterior"), *(part.get("holes") or ()))
            ]
            for part in parts
        ]
    }


def _point(point, where):
    point = as_list(point, where)
    if len(point) != 2:
        raise InputError(f"{where}: expected points of x and y, got {point!r:.80}.")
    return {"x": as_number(point[0], where), "y": as_number(point[1], where)}


def _others(geometry, where):
    return {"points": geometry.get("points") or []}


_COORDS = {"bbox": _box, "polygon": _polygon}


def make_keys(assets):
    """Returns the name of each image in an export, a dict from asset id.

    An image keeps its file name. Images that share one are told apart by a folder that
    is named like their id.

    Args:
        assets: list of the platform's descriptions of images, dicts.

    Example:
        >>> names = {"1": "a.jpg", "2": "b.jpg", "3": "a.jpg"}
        >>> make_keys([{"asset_id": i, "filename": n} for i, n in names.items()])
        {'1': '1/a.jpg', '2': 'b.jpg', '3': '3/a.jpg'}
    """
    names = {a["asset_id"]: clean_path(str(a.get("filename") or "")) for a in assets}
    # A disk may take names for equal that differ in upper case only.
    counts = Counter(name.casefold() for name in names.values())
    return {
        asset_id: name if counts[name.casefold()] == 1 else f"{asset_id}/{name}"
        for asset_id, name in names.items()
    }


def clean_path(name):
    """Returns a name as a path inside an archive: one line, and not outside of it.

    Example:
        >>> clean_path("../yard\\\\a\\n.jpg")
        '_/yard/a_.jpg'
    """
    parts = normalise_path(name).split("/")
    parts = [re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", "_", part) for part in parts]
    return "/".join("_" if part.strip(" .") == "" else part for part in parts)


def clean_folder(name):
    """Returns a name as that of one folder inside an archive.

    Example:
        >>> clean_folder("yard/north")
        'yard_north'
    """
    return clean_path(re.sub(r"[/\\]", "_", name))
