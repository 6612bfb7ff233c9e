"""What becomes of each label of the Suite, and all of them, some at a time.

A box that is sent gets an id which tells its picture, class and place. So a box that is
there already is known, and so is one that a person has changed: it has another place
than its id says, or properties, which this step gives to none.
"""

import hashlib
import json
import threading
import unicodedata
import uuid
from collections import deque
from typing import NamedTuple

from absl import logging

from superbai import project, sdk
from yolov3_tf2.errors import InputError

# Requests to the Suite at a time. It answers in tenths of a second, and counts.
PARALLEL = 8
# When it fails at so many one after the other, it would at the rest.
FAILURES_IN_A_ROW = 20
# Why a label is left as it is that somebody has submitted or skipped.
REVIEWED = "reviewed"
# What the ids of all boxes begin with that this step sends.
_MARK = "05be7ba1"


class Item(NamedTuple):
    """A picture, and what is to be in the Suite.

    Attributes:
        dataset, key: its names there.
        boxes: dict from an object's id to its class's name and (x, y, width, height).
        tags: set of the tags that it gets.
    """

    dataset: str
    key: str
    boxes: dict
    tags: set


class Outcome(NamedTuple):
    """What has become of a picture.

    Attributes:
        result: `created`, `updated`, `unchanged` or `failed`.
        reason: why it has failed; `REVIEWED` where its boxes were left for that.
        is_of_service: whether the Suite has failed, and not this picture.
    """

    result: str
    reason: str = ""
    is_of_service: bool = False


def object_id(dataset, key, name, box):
    """The id of a box in the Suite: a UUID that tells its picture, class and place."""
    # However the dataset's name was typed.
    names = [unicodedata.normalize("NFC", text) for text in (dataset, key, name)]
    text = json.dumps([*names, *map(float, box)], ensure_ascii=False)
    digest = hashlib.sha256(text.encode("utf-8")).hexdigest()
    marked = uuid.UUID(_MARK + digest[:24])
    return str(uuid.UUID(bytes=marked.bytes, version=5))


def is_ours(stored, dataset, key):
    """Whether an object of the Suite is of this step, and nobody has changed it."""
    box = project.box_of(stored)
    if box is None or not str(stored["id"]).startswith(_MARK):
        return False
    if stored.get("properties"):
        return False
    return stored["id"] == object_id(dataset, key, *box)


class Uploader:
    """Brings the Suite's labels to what they are to be, picture by picture."""

    def __init__(self, project, values, encoded_of):
        """Takes what it needs.

        Args:
            project: a `project.Project`.
            values: the step's parameters.
            encoded_of: a function from an `Item` to its picture's bytes, None where it
                was not given.
        """
        self.suite = project
        self._values = values
        self._encoded_of = encoded_of

    def __call__(self, item):
        """Does what is to be done for one `Item`; returns the `Outcome`."""
        try:
            return self._bring(item)
        except sdk.RefusedError:
            raise
        except (InputError, OSError) as error:
            is_of_service = isinstance(error, sdk.SuiteError)
            return Outcome("failed", str(error), is_of_service)

    def _bring(self, item):
        label = self.suite.find(item.dataset, item.key)
        is_new = label is None
        if is_new:
            label = self._upload(item)
            if label is None:  # It is a dry run.
                return Outcome("created")
        elif self._values["upload_images"]:
            self._check_picture(label)
        kept, added = self._plan(item, label)
        before = [one["id"] for one in label.objects]
        differs = before != [*(one["id"] for one in kept), *added]
        # Whoever has submitted or skipped a label has decided what is in it.
        is_left = differs and label.is_decided and not self._may_change_decided()
        changes_boxes = differs and not is_left
        if changes_boxes:
            self.suite.check_kept(label, kept)
        tags = set(label.tags) | item.tags
        status = self._values["status"]
        changes_status = status not in ("keep", label.status) and (
            changes_boxes or not label.is_decided
        )
        if not self._values["dry_run"]:
            if changes_boxes:
                if changes_status and label.is_decided:
                    # At first, or a run that is cut off here would leave new boxes as
                    # if somebody had decided on them, and the next one nothing to do.
                    self.suite.set_status(label, "WORKING")
                self.suite.write(label, kept, added)
            if tags != set(label.tags):
                self.suite.set_tags(label, sorted(tags))
            if changes_status and status != "WORKING":
                self.suite.set_status(label, status)
        if is_new or (changes_boxes and not before):
            return Outcome("created")
        changed = changes_boxes or changes_status or tags != set(label.tags)
        reason = REVIEWED if is_left else ""
        return Outcome("updated" if changed else "unchanged", reason)

    def _may_change_decided(self):
        return self._values["status"] != "keep" or self._values["replace"] == "all"

    def _upload(self, item):
        """Uploads a picture; returns its label, None in a dry run."""
        where = f"{item.dataset}/{item.key}"
        if not self._values["upload_images"]:
            raise InputError(
                f"{where}: the project has no such picture; --upload_images uploads "
                "it, and --dataset says which dataset it is in."
            )
        project.check_names(item.dataset, item.key)
        encoded = self._encoded_of(item)
        if encoded is None:
            raise InputError(f"{where}: expected its picture among the images.")
        if self._values["dry_run"]:
            return None
        is_sent = self.suite.upload(encoded, item.dataset, item.key)
        label = self.suite.find(item.dataset, item.key)
        if label is None and is_sent:
            raise InputError(
                f"{where}: uploaded, but the Suite does not list it; run again later."
            )
        if label is None:
            raise InputError(
                f"{where}: nothing was uploaded: the Suite says that it has this "
                "picture already, but lists none in this project; is the name taken in "
                "another project, or was the picture deleted a moment ago?"
            )
        if not is_sent:
            self._check_picture(label)
        return label

    def _check_picture(self, label):
        """Raises an `InputError` where the Suite has a label without a picture."""
        status = self.suite.picture_status(label)
        if status == 200:
            return
        message = (
            f"{label.name}: the Suite has its label, but answers with {status} for its "
            "picture"
        )
        if label.objects:
            # What an earlier upload has left behind has none: they are somebody's work.
            raise InputError(
                f"{message}. Its label has objects, so keep it; look whether the Suite "
                "shows the picture. Without --upload_images nobody asks for it."
            )
        raise InputError(
            f"{message}. If the Suite does not show it either, an earlier upload broke "
            "off there: delete it in the Suite and run again. If this is said of all "
            "pictures, a proxy or the Suite's storage rather refuses them."
        )

    def _plan(self, item, label):
        """The objects of a label that stay, and the boxes that come to them."""
        replace = self._values["replace"]
        if replace == "none" and label.objects:
            return label.objects, {}
        kept, added = [], dict(item.boxes)
        for one in label.objects:
            if one["id"] in added and is_ours(one, item.dataset, item.key):
                # Where it is, so that a label that is right is not written again.
                kept.append(one)
                del added[one["id"]]
            elif replace == "ours" and not is_ours(one, item.dataset, item.key):
                kept.append(one)
                added.pop(one["id"], None)  # Corrected by somebody: that one stays.
        return kept, added


def upload_all(uploader, items, told, bar):
    """Does what is to be done for all, some at a time.

    Args:
        uploader: an `Uploader`.
        items: list of `Item`.
        told: a `SimpleQueue`, into which None is put for each signal to stop. They are
            to be held: one that broke in could meet a thread that has just been
            started, and that nobody would wait for.
        bar: a progress bar, with a method `update`.

    Returns:
        A list of the `Outcome` of each item, None of those that were not finished; and
        what has ended it before, None if nothing has. That is for the caller to raise:
        also after an interruption there is something to report.
    """
    outcomes, ended_by, in_a_row = [None] * len(items), None, 0
    left, running = deque(enumerate(items)), 0
    try:
        while left or running:
            # No more than are needed: what was not begun need not be taken back.
            while left and running < PARALLEL:
                _start(uploader, *left.popleft(), outcomes, told)
                running += 1
            news = told.get()
            if news is None:
                raise KeyboardInterrupt
            running -= 1
            if isinstance(news, BaseException):
                raise news
            bar.update()
            outcome = outcomes[news]
            in_a_row = in_a_row + 1 if outcome.is_of_service else 0
            if in_a_row >= FAILURES_IN_A_ROW:
                raise sdk.RefusedError(
                    f"{in_a_row} pictures failed one after the other, the last as "
                    f"{outcome.reason}"
                )
    except BaseException as error:  # Given back, see above.
        ended_by = error
    # Those that are under way end with their next failure.
    uploader.suite.stopped.set()
    if running and isinstance(ended_by, KeyboardInterrupt):
        logging.info("stopping as soon as %d pictures are done", running)
    while running and told.get() is not None:  # Who asks twice does not want to wait.
        running -= 1
    return list(outcomes), ended_by  # Threads that nobody waits for may go on.


def _start(uploader, number, item, outcomes, told):
    """Brings an item in a thread.

    Unlike those of an executor, the thread does not hold up the end of the process: a
    request may wait for long, and whoever stops the process twice means it.

    Args:
        uploader: an `Uploader`.
        number: the item's place in `outcomes`.
        item: an `Item`.
        outcomes: list; gets the `Outcome`.
        told: `SimpleQueue`; gets `number` at the end, or the error that was raised.
    """

    def call():
        try:
            outcomes[number] = uploader(item)
        except BaseException as error:  # Raised where the queue is read.
            told.put(error)
        else:
            told.put(number)

    threading.Thread(target=call, daemon=True).start()
