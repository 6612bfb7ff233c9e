"""The JSON of a Suite export: project, metas and labels in all their spellings.

Pure functions from parsed JSON to plain values. `where` names the zip and the entry for
the errors, which are all `InputError`.
"""

import math
from collections import Counter
from pathlib import PurePosixPath

from yolov3_tf2 import archives
from yolov3_tf2.errors import InputError


def check_project(project, name):
    """Raises an `InputError` unless `project` is one of pictures."""
    kind = project.get("type", "image-default")
    if "object_tracking" in project or project.get("data_type") == "image sequence":
        kind = "video-siesta"
    if kind not in ("image-default", "image-siesta"):
        raise InputError(
            f"{name}: project.json is a '{kind}' project; only image projects can be "
            "converted."
        )


def read_classes(project, name):
    """Returns the box classes, and a dict of ("id" or "name", value) to their index."""
    where = f"{name}: project.json"
    found = []
    if "object_detection" in project:
        detection = as_dict(project["object_detection"], where)
        for thing in _dicts(detection.get("object_classes"), where):
            kind = thing.get("annotation_type")
            found.append((thing.get("name"), thing.get("id"), kind))
    else:
        for thing in _dicts(project.get("objects"), where):
            shapes = as_dict(as_dict(thing.get("info"), where).get("shapes"), where)
            found += [
                (thing.get("class_name"), thing.get("class_id"), k) for k in shapes
            ]
    names, index = [], {}
    for class_name, class_id, kind in found:
        if kind != "box":
            continue
        class_name = str(class_name or "").strip()
        if len(class_name.splitlines()) != 1:
            raise InputError(
                f"{where} has a class named {class_name!r}; expected one line of text."
            )
        if class_name in names:
            raise InputError(
                f"{name}: two box classes are both named '{class_name}'; rename one in "
                "the Suite."
            )
        index["name", class_name] = len(names)
        if class_id is not None:
            index["id", str(class_id)] = len(names)
        names.append(class_name)
    if not names:
        kinds = Counter(kind for _, _, kind in found)
        listed = ", ".join(f"{kind} {number}" for kind, number in kinds.items())
        raise InputError(
            f"{name}: the project has no bounding-box class (found: "
            f"{listed or 'none at all'})."
        )
    return names, index


def read_objects(label, class_index, where):
    """Reads the objects of a label, whatever its spelling.

    Args:
        label: the parsed JSON; null, {} and one without objects are of a picture that
            was submitted without any object.
        class_index: see `read_classes`.
        where: what to call the label in an error.

    Returns:
        Three lists: boxes, xyxy in pixels and unclipped; their class indices; and the
        types of the objects that are no boxes.

    Raises:
        InputError: the label is not of the Suite's form, or a class is unknown.
    """
    label = as_dict(label, where)
    label = as_dict(label.get("result", label), where)
    boxes, labels, others = [], [], []
    for number, thing in enumerate(_dicts(label.get("objects"), where), start=1):
        here = f"{where} object {number}"
        shape = as_dict(thing.get("shape"), here)
        if "x" in shape:
            shape = {"box": shape}  # The legacy format had both forms.
        kind = thing.get("annotation_type") or thing.get("annotationType")
        kind = kind or next(iter(shape), "unknown")
        if kind != "box":
            others.append(kind)
            continue
        labels.append(_class_of(thing, class_index, here))
        annotation = as_dict(thing.get("annotation"), here)
        coord = shape.get("box") or annotation.get("coord")
        boxes.append(_box(as_dict(coord, here), here))
    return boxes, labels, others


def _class_of(thing, class_index, where):
    """Returns the class index of an object, by its class's id or else its name."""
    class_id = thing.get("class_id", thing.get("classId"))
    name = thing.get("class_name") or thing.get("className") or thing.get("class")
    name = str(name or "").strip()
    index = None
    if class_id is not None:
        index = class_index.get(("id", str(class_id)))
    if index is None:
        index = class_index.get(("name", name))
    if index is None:
        known = ", ".join(value for kind, value in class_index if kind == "name")
        raise InputError(
            f"{where}: class '{name}' (id {class_id}) is not in project.json (known: "
            f"{known}); was it renamed or deleted after the export?"
        )
    return index


def label_name(meta, root, where):
    """Returns the entry of a meta's label, "" where it names none."""
    paths = meta.get("label_path")
    paths = [paths] if isinstance(paths, str) else _list(paths, where)
    return f"{root}{paths[0]}" if paths and isinstance(paths[0], str) else ""


def identity(meta, path, where):
    """Returns (dataset, data_key) of a meta whose own path below meta/ is `path`."""
    folder, _, rest = path.partition("/")
    dataset = str(meta.get("dataset") or folder)
    key = archives.normalise(str(meta.get("data_key") or rest.removesuffix(".json")))
    if ".." in PurePosixPath(key).parts:
        raise InputError(f"{where}: data_key '{key}' leaves the archive.")
    return archives.normalise(dataset), key


def is_in_consensus(meta, where):
    """Tells whether several people's labels of a picture are being compared."""
    related = as_dict(meta.get("related_labels"), where)
    return bool(related.get("consensus_labeling"))


def tags(meta, where):
    """Returns the tags of a meta as a set of lower-case names."""
    given = meta.get("tags")
    names = [
        tag.get("name", "") if isinstance(tag, dict) else tag
        for tag in ([given] if isinstance(given, str) else _list(given, where))
    ]
    return frozenset(str(name).strip().lower() for name in names)


def labelled_size(meta, where):
    """Returns (width, height) that a picture was labelled at, None if unknown."""
    info = as_dict(meta.get("image_info"), where)
    size = [info.get(side) for side in ("width", "height")]
    if None in size or 0 in size:
        return None
    return tuple(round(_number(side, f"{where}: image_info")) for side in size)


def _box(coord, where):
    """Returns xyxy of a coord of x, y (left, top), width and height, pixels."""
    values = []
    for side in ("x", "y", "width", "height"):
        if coord.get(side) is None:
            raise InputError(f"{where}: the box has no '{side}'.")
        values.append(_number(coord[side], f"{where}: {side}"))
    x, y, width, height = values
    # A negative size is a box drawn from the other corner.
    left, right = sorted((x, x + width))
    top, bottom = sorted((y, y + height))
    return left, top, right, bottom


def _number(value, where):
    """Returns a JSON number as a finite float."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{where} {value!r} is not a number.")
    try:
        number = float(value)
    except OverflowError:  # An integer of more than 308 digits.
        number = math.inf
    if not math.isfinite(number):
        raise InputError(f"{where} is {number}, which is not finite.")
    return number


def as_dict(value, where):
    """Returns a JSON object, an empty one for null.

    Raises:
        InputError: it is something else.
    """
    return _checked(value, dict, "an object", where)


def _list(value, where):
    """Returns a JSON array, an empty one for null."""
    return _checked(value, list, "a list", where)


def _dicts(value, where):
    """Returns a JSON array whose members are all objects."""
    things = _list(value, where)
    for number, thing in enumerate(things, start=1):
        if thing is None:
            raise InputError(f"{where} object {number}: expected an object, got null.")
        as_dict(thing, f"{where} object {number}")
    return things


def _checked(value, kind, name, where):
    if value is None:
        return kind()
    if not isinstance(value, kind):
        raise InputError(
            f"{where}: expected {name}, got {value!r:.60}; is it of the Suite's export?"
        )
    return value
