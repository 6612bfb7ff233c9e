"""Brings the labels of a Suite project in line with a plan.

`Uploader` does this for one image; `upload_all` for all of them, several at a time.
"""

import threading
from concurrent.futures import Future
from typing import NamedTuple

from absl import logging

from superbai import label_merge, sdk
from superbai.box_id import stored_id
from superbai.failures import MissingBytesError
from superbai.stored_label import ChangedError
from yolov3_tf2.errors import InputError

# Images in progress at the same time. The Suite answers each request in tenths of a
# second, and limits their number.
MAX_RUNNING = 8
# After this many failures of the Suite in a row, the remaining images would fail too.
MAX_FAILURES_IN_A_ROW = 20
# After this many changes of a label by somebody else while it is written, it is left.
MAX_CHANGES = 5
# Reason of an `Outcome` whose boxes stay because people have submitted or skipped them.
REVIEWED = "reviewed"
# Reason of an `Outcome` whose boxes the Suite has stored under other ids than sent.
OTHER_IDS = "other ids"


class Outcome(NamedTuple):
    """The result of one image.

    Attributes:
        result: `created`, `updated`, `unchanged` or `failed`.
        reason: the error of a failed image; `REVIEWED` if other boxes were not sent
            because the label is submitted or skipped; `OTHER_IDS` if a later upload
            cannot recognise those that were sent; else empty.
        is_suite_failure: whether the Suite failed, rather than this image.
        lacks_bytes: whether the Suite has the image's names but not its bytes.
        num_stacked: see `label_merge.count_stacked`.
    """

    result: str
    reason: str = ""
    is_suite_failure: bool = False
    lacks_bytes: bool = False
    num_stacked: int = 0


class StoppedError(Exception):
    """The upload is to stop, and nothing of this image has been changed."""


class _Plan(NamedTuple):
    """What is to be done about one label.

    Attributes:
        kept_objects, new_boxes: see `label_merge.merge_objects`.
        changes_boxes, changes_tags, changes_status: what differs from the label.
        is_protected: whether other boxes are not sent as somebody has decided.
    """

    kept_objects: list
    new_boxes: dict
    changes_boxes: bool
    changes_tags: bool
    changes_status: bool
    is_protected: bool


class Uploader:
    """Brings the label of an image in line with its `Item`; call it with one.

    Attributes:
        project: the `project.Project`.
    """

    def __init__(self, project, read_image, *, upload_images, status, replace, dry_run):
        """Stores what all items share.

        Args:
            project: a `project.Project`.
            read_image: function from an `Item` to the bytes of its image; None if it
                was not given.
            upload_images: upload images that the project does not have.
            status: `keep`, or the status of labels that are changed or that nobody has
                submitted or skipped.
            replace: see `label_merge.merge_objects`.
            dry_run: change nothing.
        """
        self.project = project
        self._read_image = read_image
        self._upload_images = upload_images
        self._status = status
        self._replace = replace
        self._dry_run = dry_run

    def __call__(self, item):
        """Brings one label in line; returns the `Outcome`.

        Raises:
            RefusedError: the Suite refuses the credentials.
        """
        try:
            return self._update_label(item)
        except sdk.RefusedError:
            raise
        except (InputError, OSError) as error:
            return Outcome(
                "failed",
                str(error),
                isinstance(error, sdk.SuiteError),
                isinstance(error, MissingBytesError),
            )

    def _update_label(self, item):
        if item.problem:
            raise InputError(item.problem)
        label = self.project.find_label(item.dataset, item.key)
        is_new = label is None
        if is_new:
            label = self._create_label(item)
            if label is None:
                return Outcome("created")
        elif self._upload_images:
            self._check_has_image(label)
        plan = self._plan(item, label)
        gets_first_boxes = plan.changes_boxes and not label.objects
        is_changed = plan.changes_boxes or plan.changes_tags or plan.changes_status
        if not self._dry_run:
            label, plan = self._carry_out(item, label, plan)
        reason = REVIEWED if plan.is_protected else ""
        if plan.changes_boxes and not self._dry_run:
            is_known = set(plan.new_boxes) <= set(map(stored_id, label.objects))
            reason = "" if is_known else OTHER_IDS
        result = "updated" if is_changed else "unchanged"
        if is_new or (gets_first_boxes and not plan.is_protected):
            result = "created"
        num_stacked = label_merge.count_stacked(item, label.objects)
        return Outcome(result, reason, num_stacked=num_stacked)

    def _plan(self, item, label):
        """Returns the `_Plan` for a label as it was read."""
        kept_objects, new_boxes = label_merge.merge_objects(
            item, label.objects, self._replace
        )
        has_other_boxes = bool(new_boxes) or len(kept_objects) < len(label.objects)
        # Whoever submitted or skipped a label has decided which boxes are right.
        is_protected = (
            label.is_decided and self._status == "keep" and self._replace != "all"
        )
        changes_boxes = has_other_boxes and not is_protected
        if changes_boxes:
            self.project.check_can_keep(label, kept_objects)
        return _Plan(
            kept_objects,
            new_boxes,
            changes_boxes,
            not item.tags <= set(label.tags),
            self._status not in ("keep", label.status)
            and (changes_boxes or not label.is_decided),
            has_other_boxes and is_protected,
        )

    def _carry_out(self, item, label, plan):
        """Does what a plan says; returns the label afterwards, and the final plan.

        If somebody changes the label in the meantime, it is read and planned anew.
        """
        is_interrupted, final_status = False, self._status
        for _ in range(MAX_CHANGES):
            try:
                if plan.changes_status and plan.changes_boxes and label.is_decided:
                    # Before the boxes: if the run is cut off here, new boxes must not
                    # count as submitted, and the next run must see what is left to do.
                    self.project.set_status(label, "WORKING")
                    label = label._replace(status="WORKING")
                if plan.changes_boxes:
                    label = self.project.set_objects(
                        label, plan.kept_objects, plan.new_boxes
                    )
                elif is_interrupted:
                    # The Suite has already got the number of the objects to come.
                    self.project.check_can_keep(label, label.objects)
                    label = self.project.set_objects(label, label.objects, {})
                break
            except ChangedError:
                is_interrupted = True
                label = self.project.find_label(item.dataset, item.key)
                if label is None:
                    raise InputError(f"{item.name}: it was just deleted.") from None
                plan = self._plan(item, label)
        else:
            raise InputError(
                f"{item.name}: its label was changed {MAX_CHANGES} times while this "
                "run tried to write it; run again when nobody works on it."
            )
        if not item.tags <= set(label.tags):
            self.project.set_tags(label, sorted(set(label.tags) | item.tags))
        if plan.changes_status and label.status != final_status:
            self.project.set_status(label, final_status)
        return label, plan

    def _create_label(self, item):
        """Uploads an image; returns its label, None in a dry run."""
        if not self._upload_images:
            raise InputError(
                f"{item.name}: the project does not have this image; set "
                "--upload_images=true to upload it, or --dataset to the dataset that "
                "it is in."
            )
        self.project.check_names(item.dataset, item.key)
        encoded = self._read_image(item)
        if encoded is None:
            raise InputError(
                f"{item.name}: expected its file among the images, got none; is it "
                "missing from --images?"
            )
        if self._dry_run:
            return None
        if self.project.stopped.is_set():
            raise StoppedError(item.name)
        is_sent = self.project.upload_image(encoded, item.dataset, item.key)
        label = self.project.find_label(item.dataset, item.key)
        if label is None and is_sent:
            raise InputError(
                f"{item.name}: uploaded, but the Suite does not list it yet; run again "
                "later."
            )
        if label is None:
            raise InputError(
                f"{item.name}: not uploaded: the Suite says that it already has this "
                "image, but does not list it in this project; is the name taken in "
                "another project, or was the image just deleted?"
            )
        if not is_sent:
            self._check_has_image(label)
        return label

    def _check_has_image(self, label):
        """Raises an `InputError` if the Suite has a label but not its image."""
        status = self.project.request_image(label)
        if status == 200:
            return
        message = (
            f"{label.name}: the Suite has its label, but answers {status} for its image"
        )
        if label.objects:
            # An interrupted upload leaves no objects, so these are somebody's work.
            raise MissingBytesError(
                f"{message}. The label has objects, so keep it; check whether the "
                "Suite shows the image. Without --upload_images the image is not "
                "checked."
            )
        raise MissingBytesError(
            f"{message}. If the Suite does not show it either, an earlier upload was "
            "interrupted: delete it in the Suite and run again. If all images fail "
            "like this, a proxy or the Suite's storage is probably refusing them."
        )


def upload_all(uploader, items, events, bar):
    """Brings the labels of all items in line, several at a time.

    Args:
        uploader: an `Uploader`.
        items: list of `Item`.
        events: a `SimpleQueue` that gets None for each signal to stop. Signals must not
            raise in the main thread: between the start of a thread and its entry in
            the list, an exception would leave a thread that nobody waits for.
        bar: progress bar with a method `update`.

    Returns:
        A list of the `Outcome` of each item, None for those not finished; and the
        exception that ended the upload early, or None. The caller raises it, as there
        is something to report first.
    """
    futures, num_done, failures_in_a_row, ended_by = [], 0, 0, None
    try:
        while num_done < len(items):
            # Items are started when their turn comes, so nothing needs cancelling.
            while len(futures) < min(num_done + MAX_RUNNING, len(items)):
                futures.append(_start(uploader, items[len(futures)], events.put))
            future = events.get()
            if future is None:
                raise KeyboardInterrupt
            num_done += 1
            outcome = future.result()
            bar.update()
            failures_in_a_row += 1
            if not outcome.is_suite_failure:
                failures_in_a_row = 0
            if failures_in_a_row >= MAX_FAILURES_IN_A_ROW:
                raise sdk.RefusedError(
                    f"{failures_in_a_row} images failed in a row, the last with: "
                    f"{outcome.reason}"
                )
    except BaseException as error:  # Returned, see above.
        ended_by = error
    # The running ones end with their next failure instead of trying again.
    uploader.project.stopped.set()
    if num_done < len(futures) and isinstance(ended_by, KeyboardInterrupt):
        logging.info(
            "interrupted: finishing %d images in progress; interrupt again to stop now",
            len(futures) - num_done,
        )
    while num_done < len(futures) and events.get() is not None:
        num_done += 1
    outcomes = [
        future.result() if future.done() and not future.exception() else None
        for future in futures
    ]
    return outcomes + [None] * (len(items) - len(futures)), ended_by


def _start(function, argument, when_done):
    """Calls a function in a daemon thread; returns its `Future`.

    Does not use a `ThreadPoolExecutor`: the interpreter joins the threads of an
    executor at exit, even after `shutdown(wait=False)`, so a request that hangs would
    delay a process that was asked twice to stop.

    Args:
        function: called with `argument`.
        when_done: called with the future, in the thread.
    """
    future = Future()
    future.add_done_callback(when_done)

    def call():
        try:
            result = function(argument)
        except BaseException as error:  # `Future.result` raises it.
            future.set_exception(error)
        else:
            future.set_result(result)

    threading.Thread(target=call, daemon=True).start()
    return future
