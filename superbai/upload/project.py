"""A project of the Superb AI Suite, as far as an upload needs it.

All requests go through the Suite's own SDK, see `sdk.py`. `Project` adds the checks
that the SDK lacks: whether names break its queries, and whether the Suite really holds
what was sent.
"""

import tempfile
from pathlib import Path

import requests

from superbai.upload import sdk
from superbai.upload.failures import UnsentBytesError
from superbai.upload.label_file import LabelFiles
from superbai.upload.label_merge import has_stored
from superbai.upload.project_classes import ProjectClasses
from superbai.upload.stored_label import (
    COORD_KEYS,
    ChangedError,
    read_class,
    read_label,
)
from superbai.upload.suite_names import check_names, normalise_names, spellings
from yolov3_tf2.errors import InputError


class Project:
    """A project of the Suite; its methods may be called in several threads.

    Attributes:
        classes: the `ProjectClasses`.
        credentials: the `credentials.Credentials` in use.
        redact: function that returns a text without the access key.
        stopped: a `threading.Event`; once it is set, failed requests are not repeated.
    """

    def __init__(self, name):
        """Opens a project with the credentials of the environment.

        Args:
            name: the project's name.

        Raises:
            InputError: the credentials or the SDK are missing, the Suite refuses them,
                or the project is unknown or not an image project with boxes.
        """
        self._sdk = sdk.Sdk()
        self.stopped, self.redact = self._sdk.stopped, self._sdk.redact
        self.credentials = self._sdk.credentials
        # Without the team: if the two are swapped, it is the key.
        action = f"cannot open project '{name}'"
        unknown = (
            f"{action}: the Suite has no project of this name; is it spelled as in the "
            "Suite, and does it belong to this team?"
        )

        def connect():
            try:
                self._client = self._sdk.client(name)
            except TypeError:  # The SDK cannot read an answer without a project.
                if self._sdk.has_answered_null("project"):
                    raise InputError(unknown) from None
                raise
            self.classes = ProjectClasses(
                self._client.project.label_interface or {},
                name,
                by_name_only=self._sdk.package == "spb",
            )

        try:
            self._sdk.call(action, connect)
        except sdk.NotFoundError:
            raise InputError(unknown) from None
        self._files = LabelFiles(self._sdk.package)

    def find_label(self, dataset, key):
        """Returns the `Label` of an image; None if the project has no such image.

        Raises:
            SuiteError: the Suite does not answer.
            InputError: the image has several labels, or one that cannot be read.
        """
        where, normalised = f"{dataset}/{key}", normalise_names((dataset, key))

        def find():
            for names in spellings(dataset, key):
                page = self._client.get_data_page(dataset=names[0], data_key=names[1])
                by_names = [((h.get_dataset_name(), h.get_key()), h) for h in page]
                # The Suite's search knows wildcards, so it may return other images.
                same = [p for p in by_names if normalise_names(p[0]) == normalised]
                same = [pair for pair in same if pair[0] == names] or same
                if len(same) > 1:
                    raise InputError(
                        f"{where}: expected one label, the Suite has {len(same)}; "
                        "projects with several labels per image are not supported."
                    )
                if same:
                    return read_label(same[0][1], where)
            return None

        return self._sdk.call(f"{where}: cannot look up its label", find)

    def request_image(self, label):
        """Requests the file of an image.

        Returns:
            The status of the answer: 200, or 403 or 404 if the Suite has no file or
            refuses it.
        """

        def ask():
            url = label.handle.get_image_url()
            with requests.get(url, stream=True, timeout=sdk.TIMEOUT) as response:
                if response.status_code not in (403, 404):
                    response.raise_for_status()
                return response.status_code

        return self._sdk.call(f"{label.name}: cannot look up its image", ask)

    def check_names(self, dataset, key):
        """Raises an `InputError` if no image can be uploaded under these names."""
        check_names(dataset, key)

    def upload_image(self, encoded, dataset, key):
        """Uploads an image that the Suite does not have.

        Args:
            encoded: the bytes of its file.
            dataset, key: its names in the Suite, see `check_names`.

        Returns:
            Whether the bytes were sent; False if the Suite already has these names.

        Raises:
            UnsentBytesError: the Suite has registered the image, but not its bytes.
            SuiteError: the Suite did not accept it.
        """
        where = f"{dataset}/{key}"

        def register(path):
            # Not `upload_image` of the SDK, which ignores the answer to the bytes.
            return self._sdk.module.run(
                command=self._sdk.module.Command(type="create_data"),
                option={"file": str(path), "dataset": dataset, "data_key": key},
                optional={"projectId": self._client.get_project_id()},
            )

        def send():
            answer = requests.put(url, data=encoded, timeout=sdk.TIMEOUT)
            answer.raise_for_status()

        # The SDK needs a file, and sends its name and size to the Suite.
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / key.rpartition("/")[2]
            path.write_bytes(encoded)
            action = f"{where}: cannot register the image"
            try:
                url = self._sdk.call(action, lambda: register(path)).presigned_url
            except sdk.ConflictError:
                return False  # An earlier try may have succeeded without an answer.
        # The Suite returns the address only once, when it registers the image. So the
        # bytes are sent to the end, even if the run is to stop.
        try:
            self._sdk.call(f"{where}: cannot upload the image", send, finish=True)
        except sdk.SuiteError as error:
            raise UnsentBytesError(
                f"{str(error).rstrip('.')}; delete the image in the Suite, where its "
                "file is missing, and run again."
            ) from None
        return True

    def check_can_keep(self, label, kept_objects):
        """Checks that a label can be written with these of its objects.

        Raises:
            InputError: the project lacks the class of an object, so the SDK would fail.
        """
        for stored in kept_objects:
            class_name, annotation_type = read_class(stored)
            if self.classes.find_spelling(class_name, annotation_type) is None:
                raise InputError(
                    f"{label.name}: its label has an object of class '{class_name}' "
                    f"({annotation_type}), which the project no longer has, so the "
                    "label cannot be changed; add the class again in the Suite, or "
                    "delete the object there."
                )

    def set_objects(self, label, kept_objects, new_boxes):
        """Replaces the objects of a label.

        Args:
            label: the result of `find_label`.
            kept_objects: those of its `objects` that stay unchanged; see
                `check_can_keep`.
            new_boxes: dict from object id to class name and (x, y, width, height) in
                pixels.

        Returns:
            The `Label` as the Suite has stored it.

        Raises:
            ChangedError: somebody has changed the label since it was read; it must be
                read again.
            SuiteError: the Suite did not store them.
        """
        handle = label.handle

        def store():
            handle.set_object_labels(
                [
                    {
                        "class_name": self.classes.suite_names[class_name],
                        "annotation": {
                            "coord": dict(
                                zip(COORD_KEYS, map(float, xywh), strict=True)
                            )
                        },
                        "properties": [],
                        "id": box_id,
                    }
                    for box_id, (class_name, xywh) in new_boxes.items()
                ]
            )
            objects = handle.data.result["objects"]
            self._check_made(label, objects, new_boxes)
            # As the Suite has stored them: the SDK's own form drops some of their keys.
            objects[:0] = map(self._as_spelled, kept_objects)
            with self._files.expecting(label):
                handle.update_info()
            written = read_label(handle, label.name)
            if not has_stored(written.objects, kept_objects, new_boxes):
                raise requests.RequestException("the Suite holds other boxes than sent")
            return written

        return self._sdk.call(f"{label.name}: cannot store its boxes", store)

    def _check_made(self, label, objects, new_boxes):
        """Raises an `InputError` if the SDK has made other objects than boxes."""
        for made in objects:
            class_id = made.get("class_id", made.get("classId"))
            annotation_type = read_class(made)[1]
            expected_id = self.classes.box_ids[new_boxes[made["id"]][0]]
            if (annotation_type, class_id) != ("box", expected_id):
                raise InputError(
                    f"{label.name}: expected a box of class {expected_id}, the SDK "
                    f"made {annotation_type} of class {class_id}."
                )

    def _as_spelled(self, stored):
        """Returns an object with its class as the project spells it.

        The SDK looks the class up by its exact name.
        """
        class_name, annotation_type = read_class(stored)
        spelling = self.classes.find_spelling(class_name, annotation_type)
        if spelling == class_name:
            return stored
        key = "class_name" if "class_name" in stored else "className"
        return {**stored, key: spelling}

    def look_again(self, label):
        """Returns a `Label` as it is now; raises an `InputError` if it is gone."""
        action = f"{label.name}: cannot look up its label"
        return self._sdk.call(action, lambda: self._read_now(label))

    def _read_now(self, label):
        names = label.handle.get_dataset_name(), label.handle.get_key()
        page = self._client.get_data_page(dataset=names[0], data_key=names[1])
        for handle in page:
            if (handle.get_dataset_name(), handle.get_key()) == names:
                return read_label(handle, label.name)
        raise InputError(f"{label.name}: it was just deleted.")

    # The Suite replaces all tags of a label, and its status, whatever they have become
    # since they were read, such as while this upload waited for the next try. So both
    # are read again right before each try.

    def add_tags(self, label, tags):
        """Adds tags to a label; returns the `Label` as it is then.

        Args:
            label: the `Label`.
            tags: set of strings.
        """

        def add():
            now = self._read_now(label)
            if tags <= set(now.tags):
                return now
            all_tags = sorted({*now.tags, *tags})
            now.handle.update_tags(all_tags)
            return now._replace(tags=all_tags)

        return self._sdk.call(f"{label.name}: cannot set its tags", add)

    def set_status(self, label, status):
        """Sets the status of a label; returns the `Label` with it.

        Raises:
            ChangedError: somebody has set another one since the label was read.
        """

        def change():
            now = self._read_now(label)
            if now.status not in (status, label.status):
                raise ChangedError(f"{label.name}: somebody has set its status.")
            if now.status != status:
                now.handle.update_status(status)
            return label._replace(status=status)

        return self._sdk.call(f"{label.name}: cannot set its status", change)
