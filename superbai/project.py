"""A project of the Superb AI Suite: what `upload_superbai.py` needs of it.

All goes through the Suite's own SDK, see `sdk.py`. What the SDK does not look at
is looked at here: which classes are boxes, whether names break its queries, and whether
the Suite holds afterwards what was sent.
"""

import re
import tempfile
import unicodedata
from itertools import product
from pathlib import Path
from typing import NamedTuple

import requests

from superbai import sdk
from yolov3_tf2.errors import InputError
from yolov3_tf2.names import normalise_name, normalise_path

# The SDK pastes names into its query without escaping them.
_UNSAFE = re.compile(r'["\\\x00-\x1f\x7f\u2028\u2029]')
_COORD = ("x", "y", "width", "height")


class Label(NamedTuple):
    """A picture's label in the Suite.

    Attributes:
        handle: the SDK's `DataHandle`.
        name: its dataset and key, as they are asked for.
        objects: list of the objects as the Suite has stored them, dicts.
        tags: list of strings.
        status: `WORKING`, `SUBMITTED` or `SKIPPED`.
    """

    handle: object
    name: str
    objects: list
    tags: list
    status: str

    @property
    def is_decided(self):
        """Whether somebody has submitted or skipped it."""
        return self.status != "WORKING"


class Project:
    """A project of the Suite.

    Attributes:
        boxes: dict from the name of a class, see `names.py`, to its id, of those that
            are boxes.
        others: dict from the name of a class to its type, of those that are none.
        stopped: a `threading.Event`; once it is set, nothing is tried again.
    """

    def __init__(self, project):
        """Opens a project; the credentials are taken from the environment.

        Args:
            project: its name.

        Raises:
            InputError: there are no credentials or no SDK, the Suite refuses them, or
                the project is unknown, or not one of pictures with boxes.
        """
        self._sdk = sdk.Sdk()
        self.stopped, self._name = self._sdk.stopped, project
        of_team = f"'{project}' of the team '{self._sdk.team}'"
        action = f"the project {of_team} cannot be opened"

        def connect():
            try:
                self._client = self._sdk.client(project)
            except TypeError:  # What the SDK makes of an answer without a project.
                raise InputError(
                    f"{action}: the Suite knows none of this name; is it spelled as in "
                    "the Suite, and of this team?"
                ) from None
            self._read_classes()

        self._sdk.call(
            action,
            connect,
            "is its name spelled as in the Suite, and of this team? If so, try again "
            "later",
        )

    def _read_classes(self):
        interface = self._client.project.label_interface or {}
        kind = interface.get("type", "image-default")
        if kind != "image-siesta":
            raise InputError(
                f"project '{self._name}' is of the type {kind}; expected image-siesta: "
                "boxes can be sent to image projects alone, and not to those from "
                "before 2021."
            )
        classes = interface["object_detection"]["object_classes"]
        boxes = [c for c in classes if c["annotation_type"] == "box"]
        self._spelled = {normalise_name(c["name"]): c["name"] for c in boxes}
        self.boxes = {normalise_name(c["name"]): c["id"] for c in boxes}
        self.others = {
            normalise_name(c["name"]): c["annotation_type"]
            for c in classes
            if normalise_name(c["name"]) not in self.boxes
        }
        self._known = {(c["name"], c["annotation_type"]) for c in classes}
        # spb-cli knows classes by their names alone.
        alike = classes if self._sdk.package == "spb" else boxes
        names = [normalise_name(c["name"]) for c in alike]
        self._ambiguous = {name for name in names if names.count(name) > 1}

    def check_classes(self, names):
        """Checks that all classes are boxes of the project.

        Raises:
            InputError: some are not.
        """
        names = set(names)
        unknown = sorted(names - set(self.boxes))
        if unknown:
            kinds = [
                f"{name} ({self.others[name]})" if name in self.others else name
                for name in unknown
            ]
            raise InputError(
                f"the annotations have the classes {', '.join(kinds)}, which are no "
                f"bounding boxes of the project '{self._name}' (it has: "
                f"{', '.join(sorted(self.boxes)) or 'none'}); add them in the Suite, "
                "or rename them there or here."
            )
        twice = sorted(names & self._ambiguous)
        if twice:
            is_spb = self._sdk.package == "spb"
            other = ", or install superb-ai-label in place of spb-cli" * is_spb
            raise InputError(
                f"the project '{self._name}' has several classes named "
                f"{', '.join(twice)}, which {'spb-cli' if is_spb else 'this step'} "
                f"cannot tell apart; rename one in the Suite{other}."
            )

    def find(self, dataset, key):
        """Finds a picture's label.

        Returns:
            A `Label`, None where the project has no such picture.

        Raises:
            SuiteError: the Suite does not answer.
            InputError: it has several, or one that cannot be read.
        """
        where, wanted = f"{dataset}/{key}", _normal((dataset, key))

        def look():
            for names in _spellings(dataset, key):
                page = self._client.get_data_page(dataset=names[0], data_key=names[1])
                by_names = [((h.get_dataset_name(), h.get_key()), h) for h in page]
                # Checked, as the Suite's search knows wildcards.
                found = [pair for pair in by_names if _normal(pair[0]) == wanted]
                found = [pair for pair in found if pair[0] == names] or found
                if len(found) > 1:
                    raise InputError(
                        f"{where}: expected one label, the Suite has {len(found)}; "
                        "projects with several labels a picture are not supported."
                    )
                if found:
                    return _label(found[0][1], where)
            return None

        return self._sdk.call(f"{where}: looking it up failed", look)

    def picture_status(self, label):
        """Asks for the picture's bytes.

        Returns:
            The status of the answer: 200; 403 or 404 where there are none, or they are
            refused.
        """

        def ask():
            url = label.handle.get_image_url()
            with requests.get(url, stream=True, timeout=sdk.TIMEOUT) as response:
                if response.status_code not in (403, 404):
                    response.raise_for_status()
                return response.status_code

        return self._sdk.call(f"{label.name}: looking for its picture failed", ask)

    def upload(self, encoded, dataset, key):
        """Uploads a picture that the Suite does not have.

        Args:
            encoded: the bytes of its file.
            dataset, key: the names that it gets, see `check_name`.

        Returns:
            Whether its bytes were sent; not, where the Suite knows these names already.

        Raises:
            SuiteError: it was not taken.
        """
        where = f"{dataset}/{key}"

        def register(path):
            # Not `upload_image`, which does not look at the answer to the bytes.
            return self._sdk.module.run(
                command=self._sdk.module.Command(type="create_data"),
                option={"file": str(path), "dataset": dataset, "data_key": key},
                optional={"projectId": self._client.get_project_id()},
            )

        def send():
            answer = requests.put(url, data=encoded, timeout=sdk.TIMEOUT)
            answer.raise_for_status()

        # The SDK wants a file, whose name and size it tells the Suite.
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / key.rpartition("/")[2]
            path.write_bytes(encoded)
            action = f"{where}: registering it failed"
            try:
                url = self._sdk.call(action, lambda: register(path)).presigned_url
            except sdk.ConflictError:
                return False  # An earlier try of this request may have got there.
        # The Suite gives the address to a new picture alone, this once.
        advice = "delete it in the Suite, where its picture is missing, and run again"
        self._sdk.call(f"{where}: its picture was not taken", send, advice)
        return True

    def check_kept(self, label, kept):
        """Checks that a label can be written with these of its objects.

        Raises:
            InputError: the project lacks the class of one, and the SDK would fail.
        """
        for one in kept:
            name, kind = _class_of(one)
            if (name, kind) not in self._known:
                raise InputError(
                    f"{label.name}: its label has an object of the class '{name}' "
                    f"({kind}), which the project no longer has; a label with it "
                    "cannot be changed. Add the class again in the Suite, or delete "
                    "the object there."
                )

    def write(self, label, kept, added):
        """Replaces the objects of a label.

        Args:
            label: the result of `find`.
            kept: those of its `objects` that stay, as they are; see `check_kept`.
            added: dict from an object's id to the pair of its class's name and its
                box, (x, y, width, height) in pixels.

        Raises:
            SuiteError: it was not stored.
        """
        handle = label.handle

        def store():
            handle.set_object_labels(
                [
                    {
                        "class_name": self._spelled[name],
                        "annotation": {
                            "coord": dict(zip(_COORD, map(float, box), strict=True))
                        },
                        "properties": [],
                        "id": identity,
                    }
                    for identity, (name, box) in added.items()
                ]
            )
            objects = handle.data.result["objects"]
            for one in objects:
                class_id = one.get("class_id", one.get("classId"))
                kind = _class_of(one)[1]
                if (kind, class_id) != ("box", self.boxes[added[one["id"]][0]]):
                    raise InputError(f"{label.name}: the SDK has made {kind} of a box.")
            # In the form that they have: the SDK's own form loses some of it.
            objects[:0] = kept
            stored = handle.update_info().result or {}
            expected = [*(one["id"] for one in kept), *added]
            if [one["id"] for one in stored.get("objects") or []] != expected:
                raise requests.RequestException("the Suite holds other boxes than sent")

        self._sdk.call(f"{label.name}: its boxes were not stored", store)

    def set_tags(self, label, tags):
        """Sets the tags of a label."""
        action = f"{label.name}: its tags were not set"
        self._sdk.call(action, lambda: label.handle.update_tags(list(tags)))

    def set_status(self, label, status):
        """Sets the status of a label."""
        action = f"{label.name}: its status was not set"
        self._sdk.call(action, lambda: label.handle.update_status(status))


def check_names(dataset, key):
    """Checks that a picture of these names can be uploaded.

    Raises:
        InputError: it cannot.
    """
    unsafe = _UNSAFE.search(dataset) or _UNSAFE.search(key)
    if unsafe:
        raise InputError(
            f"{dataset}/{key}: a name with {unsafe.group()!r} breaks the Suite's "
            "interface; rename the picture or the dataset."
        )


def box_of(stored):
    """Returns the name of an object's class and its (x, y, width, height), pixels.

    None where it is no box.
    """
    name, kind = _class_of(stored)
    annotation = stored.get("annotation")
    coord = annotation.get("coord") if isinstance(annotation, dict) else None
    if kind != "box" or not isinstance(name, str) or not isinstance(coord, dict):
        return None
    sides = tuple(coord.get(side) for side in _COORD)
    if not all(isinstance(side, int | float) for side in sides):
        return None
    return normalise_name(name), sides


def _class_of(stored):
    """Returns the name and type of an object's class; older projects use camel case."""
    name = stored.get("class_name", stored.get("className"))
    return name, stored.get("annotation_type", stored.get("annotationType"))


def _label(handle, where):
    data = handle.data
    objects = [] if data.result is None else data.result.get("objects") or []
    is_readable = isinstance(objects, list) and all(
        isinstance(one, dict) and isinstance(one.get("id"), str | int)
        for one in objects
    )
    if not is_readable:
        raise InputError(f"{where}: the objects of its label cannot be read.")
    # Copies: the SDK empties the list that it is given.
    return Label(handle, where, list(objects), handle.get_tags(), data.status)


def _spellings(dataset, key):
    """Yields the names that the Suite may hold for a picture, the likeliest first.

    Macs take the characters of names apart, other uploads put a slash in front.
    """
    forms = [
        [name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD"))]
        for name in (dataset, key)
    ]
    keys = [*forms[1], *(f"/{key}" for key in forms[1])]
    return product(dict.fromkeys(forms[0]), dict.fromkeys(keys))


def _normal(names):
    return tuple(map(normalise_path, names))
