"""The file of a label in the Suite, and a second look at it before it is replaced.

The SDK writes a label by replacing its file with what the program has in memory. What
people have done since it was read would be lost, and so would all that the SDK does not
know: the size of the image and the state of the editor.
"""

import threading
from contextlib import contextmanager
from importlib import import_module

import requests

from superbai.upload import sdk
from superbai.upload.stored_label import ChangedError, check_has_objects


class LabelFiles:
    """Makes the SDK look at the file of a label again before it replaces it."""

    def __init__(self, package):
        """Puts itself between the SDK and its files.

        Args:
            package: name of the SDK's package.
        """
        self._current = threading.local()
        module = import_module(f"{package}.image_sdk")
        files, base = self, module.LabelManager

        class Manager(base):
            def set_info_with_url(self, label_info, label=None):
                # `label` is what the Suite has answered a moment ago.
                files.complete(label_info, label)
                return super().set_info_with_url(label_info=label_info, label=label)

        module.LabelManager = Manager

    @contextmanager
    def expecting(self, label):
        """Context in which this thread writes a label that was read before.

        Args:
            label: the `stored_label.Label`.
        """
        self._current.label = label
        try:
            yield
        finally:
            self._current.label = None

    def complete(self, label_info, answered):
        """Takes over what the stored file has and the new one lacks.

        Args:
            label_info: content of the new file, a dict; updated.
            answered: the SDK's model of the label.

        Raises:
            ChangedError: the stored file or the label's status is another than when
                the label was read.
            InputError: the stored file lacks the objects that the Suite counts.
        """
        expected = self._current.label
        stored = _read(answered.info_read_presigned_url)
        # As the SDK has it: a file without this key is one without objects.
        result = None if stored is None else stored.get("result", {})
        if stored is not None:
            check_has_objects(result, expected.num_counted, expected.name)
        if answered.status != expected.status or _known(result) != expected.result:
            raise ChangedError(f"{expected.name}: somebody is changing its label.")
        for name, value in (stored or {}).items():
            label_info.setdefault(name, value)
        meta = (stored or {}).get("meta")
        if isinstance(meta, dict):
            label_info["meta"] = _merge_meta(label_info.get("meta") or {}, meta)


def _read(url):
    """Returns the content of a label's file; None if there is none."""
    answer = requests.get(url, timeout=sdk.TIMEOUT)
    if answer.status_code == requests.codes.not_found:
        return None
    answer.raise_for_status()
    content = answer.json()
    return content if isinstance(content, dict) else {}


def _known(result):
    """Returns what a file has of a label in the form of `Label.result`."""
    if result is None:
        return None
    return {**result, "objects": result.get("objects") or []}


def _merge_meta(new, stored):
    """Returns the part `meta` of a file: as stored, with the new objects added."""
    merged = {**new, **stored}
    # Older projects spell the keys in camel case.
    for name in ("edit_info", "editInfo"):
        states = new.get(name), stored.get(name)
        if not all(isinstance(state, dict) for state in states):
            continue
        by_id = [
            {one.get("id"): one for one in state.get("objects") or []}
            for state in states
        ]
        objects = [by_id[1].get(key, one) for key, one in by_id[0].items()]
        merged[name] = {**states[0], **states[1], "objects": objects}
    return merged
