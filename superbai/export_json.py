"""The JSON of a Suite export: project, metas and labels in all their spellings.

Pure functions from parsed JSON to plain values. `where` names the zip and the entry for
the errors, which are all `InputError`.
"""

import math
import re
import unicodedata
from collections import Counter
from typing import NamedTuple

from yolov3_tf2.errors import InputError
from yolov3_tf2.names import normalise_path

# The newest version whose form is known, major and minor.
KNOWN_VERSION = (0, 9)


def check_project(project, name):
    """Raises an `InputError` unless `project` is one of pictures."""
    kind = project.get("type", "image-default")
    if project.get("object_tracking") or project.get("data_type") == "image sequence":
        kind = "video-siesta"
    if kind not in ("image-default", "image-siesta"):
        raise InputError(
            f"{name}: project.json is a '{kind}' project; only image projects can be "
            "converted."
        )


def assumption(project):
    """Returns what has to be assumed about a project's format, None if nothing."""
    version = project.get("version")
    if version is None:
        return None
    found = re.match(r"(\d+)\.(\d+)", str(version))
    if found and tuple(map(int, found.groups())) <= KNOWN_VERSION:
        return None
    return (
        f"project.json is of version {version!r:.20}: read as the newest known, "
        + ".".join(map(str, KNOWN_VERSION))
    )


def read_classes(project, name, kinds):
    """Reads the classes of a project that have one of some annotation types.

    Args:
        project: the parsed project.json.
        name: what to call the export in an error.
        kinds: the annotation types, a tuple of strings.

    Returns:
        The names, in the project's order, each once; a dict of ("id" or "name", value)
        to their index; and the names that classes of several of the types share.

    Raises:
        InputError: no class has such a type, two of one type have one name, or a name
            is none.
    """
    where = f"{name}: project.json"
    found = []
    if "object_detection" in project:
        detection = as_dict(project["object_detection"], where)
        for thing in _dicts(detection.get("object_classes"), where):
            kind = thing.get("annotation_type")
            found.append((thing.get("name"), thing.get("id"), str(kind)))
    else:
        for thing in _dicts(project.get("objects"), where):
            shapes = as_dict(as_dict(thing.get("info"), where).get("shapes"), where)
            found += [
                (thing.get("class_name"), thing.get("class_id"), k) for k in shapes
            ]
    names, kinds_of, index = [], {}, {}
    for class_name, class_id, kind in found:
        if kind not in kinds:
            continue
        class_name = str(class_name or "").strip()
        if not class_name or _has_control(class_name):
            raise InputError(
                f"{where} has a class named {class_name!r}; expected one line of text."
            )
        if kind in kinds_of.setdefault(class_name, set()):
            raise InputError(
                f"{where}: two {kind} classes are both named '{class_name}'; rename "
                "one in the Suite."
            )
        if class_name not in names:
            names.append(class_name)
        kinds_of[class_name].add(kind)
        index["name", class_name] = names.index(class_name)
        if class_id is not None:
            index["id", str(class_id)] = names.index(class_name)
    if not names:
        counts = Counter(kind for _, _, kind in found)
        listed = ", ".join(f"{kind} {number}" for kind, number in counts.items())
        hint = ""
        if set(counts) & set(CORNERED):
            hint = "; --polygons=box makes boxes of polygons"
        raise InputError(
            f"{where} has no bounding-box class (found: {listed or 'none at all'})"
            f"{hint}."
        )
    shared = [class_name for class_name in names if len(kinds_of[class_name]) > 1]
    return names, index, shared


class Box(NamedTuple):
    """A box of a label.

    Attributes:
        xyxy: pixels, unclipped.
        label: the index of its class.
        is_turned: whether its width or height was negative.
        is_around: whether it is drawn around another shape.
    """

    xyxy: tuple[float, float, float, float]
    label: int
    is_turned: bool = False
    is_around: bool = False


class Label(NamedTuple):
    """The objects of a picture: its boxes, and a Counter of what is none, by type."""

    boxes: list[Box]
    left_out: Counter


def read_objects(label, class_index, kinds, where):
    """Reads the objects of a label, whatever its spelling.

    Args:
        label: the parsed JSON; null, {} and one without objects are of a picture that
            was submitted without any object.
        class_index, kinds: see `read_classes`.
        where: what to call the label in an error.

    Returns:
        A `Label`.

    Raises:
        InputError: the label is not of the Suite's form, or a class is unknown.
    """
    boxes, left_out = [], Counter()
    for number, thing in enumerate(_objects(label, where), start=1):
        here = f"{where} object {number}"
        kind, coord = _kind_and_coord(thing, here)
        if kind not in kinds:
            left_out[f"objects of type {kind}"] += 1
            continue
        index = _class_of(thing, class_index, here)
        if kind == "box":
            xyxy, is_turned = _box(as_dict(coord, here), here)
            boxes.append(Box(xyxy, index, is_turned))
            continue
        xyxy = CORNERED[kind](coord, here)
        if xyxy is None:
            left_out[f"objects of type {kind} without points"] += 1
        else:
            boxes.append(Box(xyxy, index, is_around=True))
    categories = _result(label, where).get("categories")
    if isinstance(categories, dict):
        categories = categories.get("properties")
    if categories and isinstance(categories, list):
        left_out["image categories"] += len(categories)
    return Label(boxes, left_out)


def has_objects(label, where):
    """Tells whether a label has any object, of whatever type."""
    return bool(_objects(label or None, where))


def _objects(label, where):
    return _dicts(_result(label, where).get("objects"), where)


def _result(label, where):
    """A label without the level that the legacy format has around it."""
    label = as_dict(label, where)
    return as_dict(label.get("result", label), where)


def _kind_and_coord(thing, where):
    """Returns the annotation type of an object, and its coordinates."""
    shape = as_dict(thing.get("shape"), where)
    if "x" in shape:
        shape = {"box": shape}  # The legacy format had both forms.
    kind = thing.get("annotation_type") or thing.get("annotationType")
    if not kind:
        known = [k for k in shape if k in ("box", *CORNERED)]
        kind = next(iter(known or shape), "unknown")
    coord = shape.get(kind) if isinstance(kind, str) else None
    if coord is None:
        coord = as_dict(thing.get("annotation"), where).get("coord")
    return str(kind), coord


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
    if not paths or not isinstance(paths[0], str):
        return ""
    return root + normalise_path(paths[0]).removeprefix("./")


def identity(meta, path, where):
    """Returns (dataset, data_key) of a meta whose own path below meta/ is `path`."""
    folder, _, rest = path.partition("/") if "/" in path else ("", "", path)
    dataset = normalise_path(str(meta.get("dataset") or folder))
    key = normalise_path(str(meta.get("data_key") or rest.removesuffix(".json")))
    for name, value in (("dataset", dataset), ("data_key", key)):
        if ".." in value.split("/"):
            raise InputError(f"{where}: {name} '{value}' leaves the archive.")
        if _has_control(value):
            raise InputError(f"{where}: {name} {value!r} is not one line of text.")
    return dataset, key


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
    """Returns xyxy of a coord of x, y (left, top), width and height, pixels.

    And whether its size was negative: a box that was drawn from the other corner.
    """
    x, y, width, height = _sides(coord, ("x", "y", "width", "height"), where)
    left, right = sorted((x, x + width))
    top, bottom = sorted((y, y + height))
    return (left, top, right, bottom), width < 0 or height < 0


def _around_polygon(coord, where):
    """Returns the bounding box of a polygon, of all of its parts; None without any.

    Its points lie in one list, or since version 0.6 in a list of parts, each a list of
    an outline and its holes.
    """
    if isinstance(coord, dict):
        coord = coord.get("points")
    points, parts = [], [_list(coord, where)]
    while parts:
        for part in parts.pop():
            if isinstance(part, list):
                parts.append(part)
            else:
                points.append(_sides(as_dict(part, where), ("x", "y"), where))
    if not points:
        return None
    xs, ys = zip(*points, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def _around_rotated(coord, where):
    """Returns the bounding box of a box that is turned by `angle`, degrees."""
    names = ("cx", "cy", "width", "height", "angle")
    x, y, width, height, angle = _sides(as_dict(coord, where), names, where)
    sine, cosine = math.sin(math.radians(angle)), math.cos(math.radians(angle))
    half_width = (abs(width * cosine) + abs(height * sine)) / 2
    half_height = (abs(width * sine) + abs(height * cosine)) / 2
    return x - half_width, y - half_height, x + half_width, y + half_height


# Annotation types around which a box can be drawn.
CORNERED = {"polygon": _around_polygon, "rbox": _around_rotated}


def _sides(coord, names, where):
    """Returns members of a coord as finite floats."""
    for name in names:
        if coord.get(name) is None:
            raise InputError(f"{where}: its shape has no '{name}'.")
    return [_number(coord[name], f"{where}: {name}") for name in names]


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


def _has_control(text):
    """Tells whether a text holds line ends or other control characters."""
    return any(unicodedata.category(c) in ("Cc", "Zl", "Zp") for c in text)


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
