"""The JSON of a Suite export: its project and metas in all spellings.

Pure functions from parsed JSON to plain values; `label_json` does the same for labels.
`where` names the zip and the entry in the errors, which are all `InputError`.
"""

import re
from collections import Counter
from typing import NamedTuple

from superbai.label_json import BOX_AROUND
from yolov3_tf2.errors import InputError
from yolov3_tf2.files.json_values import (
    as_dict,
    as_dicts,
    as_list,
    as_name,
    as_number,
    expect,
    is_one_line,
)
from yolov3_tf2.names import normalise_path, normalise_slashes

# The newest known version of the format, major and minor.
KNOWN_VERSION = (0, 9)


def check_project(project, name):
    """Raises an `InputError` unless `project` is an image project."""
    kind = project.get("type", "image-default")
    if project.get("object_tracking") or project.get("data_type") == "image sequence":
        kind = "video-siesta"
    if kind not in ("image-default", "image-siesta"):
        raise InputError(
            f"{name}: project.json is a '{kind}' project; only image projects can be "
            "converted."
        )


def format_assumption(project):
    """Returns what is assumed about the format of a project, None if nothing."""
    version = project.get("version")
    if version is None:
        return None
    numbers = re.match(r"(\d+)\.(\d+)", str(version))
    if numbers and tuple(map(int, numbers.groups())) <= KNOWN_VERSION:
        return None
    return (
        f"project.json has version {version!r:.20}: read as the newest known version, "
        + ".".join(map(str, KNOWN_VERSION))
    )


class Classes(NamedTuple):
    """The classes of a project.

    Attributes:
        names: class names in the order of the project, each once.
        index: dict from ("id" or "name", value) to the index of a class.
        shared: names that classes of several annotation types share.
        repeated: set of (annotation type, name) that several classes share. Labels may
            use one of them at most, see `check_repeated_classes`.
    """

    names: list[str]
    index: dict[tuple[str, str], int]
    shared: list[str]
    repeated: set[tuple[str, str]]


def read_classes(project, name, kinds):
    """Reads the classes of a project that have one of some annotation types.

    Args:
        project: the parsed project.json.
        name: what to call the export in an error.
        kinds: the annotation types, a tuple of strings.

    Returns:
        A `Classes`.

    Raises:
        InputError: no class has such a type, or a name is not one line of text.
    """
    where = f"{name}: project.json"
    names, kinds_of, index, all_kinds, repeated = [], {}, {}, Counter(), set()
    for class_name, class_id, kind in _listed_classes(project, where):
        all_kinds[kind] += 1
        if kind not in kinds:
            continue
        class_name = as_name(str(class_name or ""), f"{where}: class name")
        if kind in kinds_of.setdefault(class_name, set()):
            repeated.add((kind, class_name))
        if class_name not in names:
            names.append(class_name)
        kinds_of[class_name].add(kind)
        index["name", class_name] = names.index(class_name)
        if class_id is not None:
            index["id", str(class_id)] = names.index(class_name)
    if not names:
        listed = ", ".join(f"{kind} {number}" for kind, number in all_kinds.items())
        hint = ""
        if set(all_kinds) & set(BOX_AROUND):
            hint = "; --polygons=box draws boxes around polygons"
        raise InputError(
            f"{where} has no bounding-box class (found: {listed or 'no classes'})"
            f"{hint}."
        )
    shared = [class_name for class_name in names if len(kinds_of[class_name]) > 1]
    return Classes(names, index, shared, repeated)


def check_repeated_classes(used, name):
    """Raises an `InputError` if labels use two classes with the same type and name.

    Args:
        used: set of (annotation type, class name, class id) that labels use; the id is
            None where a label has the name alone.
        name: what to call the export in an error.
    """
    ids = {}
    for kind, class_name, class_id in used:
        ids.setdefault((kind, class_name), set()).add(class_id)
    for (kind, class_name), found in sorted(ids.items()):
        if len(found) > 1 or None in found:
            raise InputError(
                f"{name}: project.json: two {kind} classes are both named "
                f"'{class_name}', and labels use both or do not say which; rename one "
                "in the Suite."
            )


def _listed_classes(project, where):
    """Yields name, id and annotation type of each class, in any spelling."""
    if "object_detection" in project:
        detection = as_dict(project["object_detection"], where, optional=True)
        for thing in as_dicts(
            detection.get("object_classes"), where, "class", optional=True
        ):
            kind = str(thing.get("annotation_type"))
            yield thing.get("name"), thing.get("id"), kind
    else:
        for thing in as_dicts(project.get("objects"), where, "class", optional=True):
            info = as_dict(thing.get("info"), where, optional=True)
            for kind in as_dict(info.get("shapes"), where, optional=True):
                yield thing.get("class_name"), thing.get("class_id"), kind


def label_name(meta, root, where):
    """Returns the entry of the label that a meta names, "" if it names none."""
    paths = meta.get("label_path")
    if isinstance(paths, str):
        paths = [paths]
    paths = as_list(paths, f"{where}: label_path", optional=True)
    if not paths or not isinstance(paths[0], str):
        return ""
    return root + normalise_path(paths[0]).removeprefix("./")


def identity(meta, path, where):
    """Returns (dataset, data_key) of a meta whose own path below meta/ is `path`.

    They have the Unicode form of the export, see `name_identities`.
    """
    folder, _, rest = path.partition("/") if "/" in path else ("", "", path)
    dataset = normalise_slashes(str(meta.get("dataset") or folder))
    key = normalise_slashes(str(meta.get("data_key") or rest.removesuffix(".json")))
    for name, value in (("dataset", dataset), ("data_key", key)):
        if ".." in value.split("/"):
            raise InputError(f"{where}: {name} '{value}' leaves the archive.")
        expect(is_one_line(value), "one line of text", value, f"{where}: {name}")
    return dataset, key


def name_identities(identities):
    """Returns a dict from each (dataset, data_key) to its name everywhere else.

    That is its NFC form, unless two images differ in their Unicode forms alone: these
    keep the names that they have.

    Example:
        >>> list(name_identities([("ds", "e\\u0301")]).values()) == [("ds", "\\u00e9")]
        True
    """
    normal = [tuple(map(normalise_path, each)) for each in identities]
    times = Counter(normal)
    return {
        exact: exact if times[name] > 1 else name
        for exact, name in zip(identities, normal, strict=True)
    }


def is_in_consensus(meta, where):
    """Returns whether the labels of several people for an image are being compared."""
    related = as_dict(
        meta.get("related_labels"), f"{where}: related_labels", optional=True
    )
    return bool(related.get("consensus_labeling"))


def tags(meta, where):
    """Returns the tags of a meta as a set of lower-case names."""
    listed = meta.get("tags")
    if isinstance(listed, str):
        listed = [listed]
    names = [
        tag.get("name", "") if isinstance(tag, dict) else tag
        for tag in as_list(listed, f"{where}: tags", optional=True)
    ]
    return frozenset(str(name).strip().lower() for name in names)


def labelled_size(meta, where):
    """Returns (width, height) of the image when it was labelled, None if unknown."""
    where = f"{where}: image_info"
    info = as_dict(meta.get("image_info"), where, optional=True)
    size = [info.get(side) for side in ("width", "height")]
    if None in size or 0 in size:
        return None
    return tuple(round(as_number(side, where)) for side in size)
