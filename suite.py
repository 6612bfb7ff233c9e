"""The Superb AI Suite through its SDK: what `upload_superbai.py` needs of it.

The SDK is spb-cli, or superb-ai-label where that is the one installed; both have the
same calls. Neither looks at all answers, repeats what fails for a moment, or says which
picture it was: this module does.
"""

import logging
import os
import random
import re
import threading
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import requests

from yolov3_tf2.errors import InputError

PACKAGES = ("spb", "spb_label")
# Seconds between the tries of what failed for a moment, beside the SDK's own tries;
# and how many of them for what hardly passes, such as an address that had expired.
RETRY_SECONDS = (0.5, 1, 2, 4, 8, 16)
SHORT_TRIES = 2
_HARDLY = re.compile(r"\b4(?!08|29)\d\d Client Error|cannot be described from url")
_PUT_TIMEOUT = 120
# The SDK pastes names into its query without escaping them.
_UNSAFE = re.compile(r'["\\\x00-\x1f\x7f\u2028\u2029]')

# By the names of the SDK's exceptions. No second try changes these.
_CREDENTIALS = (
    "UnauthorizedException",
    "ForbiddenException",
    "AuthenticateFailedException",
    "SDKInitiationFailedException",
)
_FINAL = (
    "BadRequestException",
    "NotFoundException",
    "ConflictException",
    "PreConditionException",
    "ParameterException",
    "NotSupportedException",
    "AttributeTypeException",
)
# What the SDK raises where an answer has another form than it expects.
_UNEXPECTED = (AttributeError, KeyError, TypeError, IndexError)


class SuiteError(InputError):
    """An action of the Suite that failed for one picture."""


class RefusedError(InputError):
    """The Suite refuses the credentials: nothing else can be done."""


class _Conflict(SuiteError):
    """A picture of this dataset and key is there already."""


class Label(NamedTuple):
    """A picture's label in the Suite.

    Attributes:
        handle: the SDK's `DataHandle`.
        objects: list of the objects as the Suite has stored them, dicts.
        tags: list of strings.
        status: `WORKING`, `SUBMITTED` or `SKIPPED`.
    """

    handle: object
    objects: list
    tags: list
    status: str


class Suite:
    """A project of the Suite.

    Attributes:
        boxes: dict from the name of a class to its id, of those that are boxes.
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
        self.stopped = threading.Event()
        self._name = project
        team, self._key = _credentials()
        package = next((name for name in PACKAGES if find_spec(name)), None)
        if package is None:
            raise InputError(
                "the Suite's SDK is not installed: pip install -r "
                "requirements-suite.txt, in an environment of its own, or pip install "
                "superb-ai-label beside the other requirements."
            )
        # Its notes of what it tries again hold the addresses that let anyone in.
        logging.getLogger("urllib3").setLevel(logging.ERROR)
        # The SDK's client for Amazon's storage, of no use here, fails at a wrong one.
        os.environ.pop("AWS_PROFILE", None)
        self._package = import_module(package)
        self._errors = import_module(f"{package}.exceptions").CustomBaseException
        client = import_module(f"{package}.sdk").Client

        action = f"the project '{project}' of the team '{team}' cannot be opened"

        def connect():
            try:
                return client(
                    project_name=project, team_name=team, access_key=self._key
                )
            except TypeError:  # What the SDK makes of an answer without a project.
                raise SuiteError(
                    f"{action}: the Suite knows none of this name; is it spelled as in "
                    "the Suite, and of this team?"
                ) from None

        self._client = self._do(action, connect)
        self._read_classes(package)

    def _read_classes(self, package):
        interface = self._client.project.label_interface or {}
        kind = interface.get("type", "image-default")
        if kind != "image-siesta":
            raise InputError(
                f"project '{self._name}' is of the type {kind}; expected image-siesta: "
                "boxes can be sent to image projects alone, and not to those from "
                "before 2021."
            )
        classes = interface["object_detection"]["object_classes"]
        self.boxes = {
            c["name"]: c["id"] for c in classes if c["annotation_type"] == "box"
        }
        self.others = {
            c["name"]: c["annotation_type"]
            for c in classes
            if c["name"] not in self.boxes
        }
        self._ambiguous = set()
        if package == "spb":  # Which knows classes by their names alone.
            names = [c["name"] for c in classes]
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
            raise InputError(
                f"the project '{self._name}' has several classes named "
                f"{', '.join(twice)}, which spb-cli cannot tell apart; rename one in "
                "the Suite, or install superb-ai-label in place of spb-cli."
            )

    def find(self, dataset, key):
        """Finds a picture's label.

        Returns:
            A `Label`, None where the project has no such picture.

        Raises:
            SuiteError: the Suite does not answer, or its label cannot be read.
        """

        def look():
            # Exactly these, and checked: the Suite's search knows wildcards.
            return [
                handle
                for handle in self._client.get_data_page(dataset=dataset, data_key=key)
                if (handle.get_dataset_name(), handle.get_key()) == (dataset, key)
            ]

        handles = self._do(f"{dataset}/{key}: looking it up failed", look)
        if len(handles) > 1:
            raise SuiteError(
                f"{dataset}/{key}: expected one label, the Suite has {len(handles)}; "
                "projects with several labels a picture are not supported."
            )
        return _label(handles[0], f"{dataset}/{key}") if handles else None

    def has_picture(self, label):
        """Tells whether the Suite holds the picture's bytes."""

        def ask():
            url = label.handle.get_image_url()
            with requests.get(url, stream=True, timeout=_PUT_TIMEOUT) as response:
                if response.status_code in (403, 404):
                    return False
                response.raise_for_status()
                return True

        where = f"{label.handle.get_dataset_name()}/{label.handle.get_key()}"
        return self._do(f"{where}: looking for its picture failed", ask)

    def upload(self, path, dataset, key):
        """Uploads a picture that the Suite does not have.

        Args:
            path: of the file.
            dataset, key: the names that it gets.

        Returns:
            Whether its bytes were sent; not, where the Suite knows these names already.

        Raises:
            SuiteError: it was not taken.
        """
        unsafe = _UNSAFE.search(dataset) or _UNSAFE.search(key)
        if unsafe:
            raise SuiteError(
                f"{dataset}/{key}: a name with {unsafe.group()!r} breaks the Suite's "
                "interface; rename the picture."
            )
        option = {
            "file": str(path),
            "file_name": key.rpartition("/")[2],
            "dataset": dataset,
            "data_key": key,
        }
        where = f"{dataset}/{key}"

        def register():
            # Not `upload_image`, which does not look at the answer to the bytes.
            return self._package.run(
                command=self._package.Command(type="create_data"),
                option=dict(option),
                optional={"projectId": self._client.get_project_id()},
            )

        def send():
            with Path(path).open("rb") as file:
                answer = requests.put(url, data=file, timeout=_PUT_TIMEOUT)
            answer.raise_for_status()

        try:
            url = self._do(f"{where}: registering it failed", register).presigned_url
        except _Conflict:
            return False  # An earlier try of this very request had reached the Suite.
        advice = "delete it in the Suite, where its picture is missing, and run again"
        self._do(f"{where}: its picture was not taken", send, advice)
        return True

    def write(self, label, kept, added):
        """Replaces the objects of a label.

        Args:
            label: the result of `find`.
            kept: those of its `objects` that stay, as they are.
            added: dict from an object's id to the pair of its class's name and its
                box, (x, y, width, height) in pixels.

        Raises:
            SuiteError: it was not stored.
        """
        handle = label.handle
        where = f"{handle.get_dataset_name()}/{handle.get_key()}"

        def store():
            handle.set_object_labels(
                [
                    {
                        "class_name": name,
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
                kind = one.get("annotation_type", one.get("annotationType"))
                if (kind, class_id) != ("box", self.boxes[added[one["id"]][0]]):
                    raise SuiteError(f"{where}: the SDK has made {kind} of a box.")
            # In the form that they have: the SDK's own form loses some of it.
            objects[:0] = kept
            stored = handle.update_info().result or {}
            expected = [*(one["id"] for one in kept), *added]
            if [one["id"] for one in stored.get("objects") or []] != expected:
                raise requests.RequestException("the Suite holds other boxes than sent")

        self._do(f"{where}: its boxes were not stored", store)

    def set_tags(self, label, tags):
        """Sets the tags of a label."""
        where = f"{label.handle.get_dataset_name()}/{label.handle.get_key()}"
        action = f"{where}: its tags were not set"
        self._do(action, lambda: label.handle.update_tags(list(tags)))

    def set_status(self, label, status):
        """Sets the status of a label."""
        where = f"{label.handle.get_dataset_name()}/{label.handle.get_key()}"
        action = f"{where}: its status was not set"
        self._do(action, lambda: label.handle.update_status(status))

    def _do(self, action, function, advice="try again later"):
        """Calls a function of the SDK; again, where it fails for a moment.

        Args:
            action: what to say where it fails.
            function: without arguments.
            advice: what to do about an error of no known kind.

        Raises:
            RefusedError: the credentials are refused.
            SuiteError: anything else.
        """
        waits, tries = list(RETRY_SECONDS), 0
        while True:
            try:
                return function()
            except (
                self._errors,
                requests.RequestException,
                *_UNEXPECTED,
            ) as error:
                kind, text = type(error).__name__, self._clean(str(error))
                if kind in _CREDENTIALS:
                    raise RefusedError(
                        f"{action}: the Suite refuses the credentials ({text}); check "
                        "SPB_ACCESS_KEY and SPB_TEAM_NAME, and that the key may write."
                    ) from None
                if kind == "ConflictException":
                    raise _Conflict(f"{action}: it is there already.") from None
                is_unexpected = isinstance(error, _UNEXPECTED)
                if kind in _FINAL or is_unexpected or self.stopped.is_set():
                    waits = []
                elif _HARDLY.search(text):
                    waits = waits[: max(SHORT_TRIES - tries, 0)]
                if not waits:
                    if is_unexpected:
                        kind = f"the SDK cannot read the Suite's answer: {kind}"
                    message = f"{action} ({kind}: {text}); {advice}."
                    # Not from the error: it holds addresses that let anyone in.
                    raise SuiteError(message) from None
            # Not all at the same moment again.
            tries += 1
            self.stopped.wait(waits.pop(0) * random.uniform(1, 1.5))

    def _clean(self, text):
        """An error's text without secrets: the key, and what signs an address."""
        text = re.sub(r"(https?://[^\s?'\")]*)\?[^\s'\")]*", r"\1", text)
        return text.replace(self._key, "…")[:300]


_COORD = ("x", "y", "width", "height")


def box_of(stored):
    """Returns the name of an object's class and its (x, y, width, height), pixels.

    None where it is no box.
    """
    name = stored.get("class_name", stored.get("className"))
    coord = (stored.get("annotation") or {}).get("coord") or {}
    kind = stored.get("annotation_type", stored.get("annotationType"))
    if kind != "box" or not all(side in coord for side in _COORD):
        return None
    return name, tuple(coord[side] for side in _COORD)


def _label(handle, where):
    data = handle.data
    result = data.result
    objects = [] if result is None else result.get("objects") or []
    if not isinstance(objects, list) or not all("id" in one for one in objects):
        raise SuiteError(f"{where}: the objects of its label cannot be read.")
    # Copies: the SDK empties the list that it is given.
    return Label(handle, list(objects), handle.get_tags(), data.status)


def _credentials():
    key = os.environ.get("SPB_ACCESS_KEY")
    # The SDK no longer reads the older name.
    team = os.environ.get("SPB_TEAM_NAME") or os.environ.get("SPB_ACCOUNT_NAME")
    missing = [
        name
        for name, value in (("SPB_ACCESS_KEY", key), ("SPB_TEAM_NAME", team))
        if not value
    ]
    if missing:
        raise InputError(
            f"no credentials of the Suite: expected {' and '.join(missing)} among the "
            "environment variables; the Suite shows both under My Page, Advanced. On "
            "Valohai add them to the project's or execution's environment, as secrets."
        )
    return team, key
