"""Brings the labels of a Suite project in line with a plan.

`Uploader` does this for one image; `upload_all` for all of them, several at a time.
"""

import threading
from concurrent.futures import Future
from typing import NamedTuple

from absl import logging

from superbai import project, sdk, upload_plan
from yolov3_tf2.errors import InputError

# Images in progress at the same time. The Suite answers each request in tenths of a
# second, and limits their number.
MAX_RUNNING = 8
# After this many failures of the Suite in a row, the remaining images would fail too.
MAX_FAILURES_IN_A_ROW = 20
# Reason of an `Outcome` whose boxes stay because people have submitted or skipped them.
REVIEWED = "reviewed"


class Outcome(NamedTuple):
    """The result of one image.

    Attributes:
        result: `created`, `updated`, `unchanged` or `failed`.
        reason: the error of a failed image; `REVIEWED` if other boxes were not sent
            because the label is submitted or skipped; else empty.
        is_suite_failure: whether the Suite failed, rather than this image.
    """

    result: str
    reason: str = ""
    is_suite_failure: bool = False


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
            replace: see `upload_plan.merge_objects`.
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
            return Outcome("failed", str(error), isinstance(error, sdk.SuiteError))

    def _update_label(self, item):
        label = self.project.find_label(item.dataset, item.key)
        is_new = label is None
        if is_new:
            label = self._create_label(item)
            if label is None:
                return Outcome("created")
        elif self._upload_images:
            self._check_has_image(label)
        kept_objects, new_boxes = upload_plan.merge_objects(
            item, label.objects, self._replace
        )
        old_ids = [stored["id"] for stored in label.objects]
        new_ids = [*(stored["id"] for stored in kept_objects), *new_boxes]
        has_other_boxes = old_ids != new_ids
        # Whoever submitted or skipped a label has decided which boxes are right.
        is_protected = (
            label.is_decided and self._status == "keep" and self._replace != "all"
        )
        changes_boxes = has_other_boxes and not is_protected
        if changes_boxes:
            self.project.check_can_keep(label, kept_objects)
        tags = set(label.tags) | item.tags
        changes_tags = tags != set(label.tags)
        changes_status = self._status not in ("keep", label.status) and (
            changes_boxes or not label.is_decided
        )
        if not self._dry_run:
            if changes_boxes:
                if changes_status and label.is_decided:
                    # Before the boxes: if the run is cut off here, new boxes must not
                    # count as submitted, and the next run must see what is left to do.
                    self.project.set_status(label, "WORKING")
                self.project.set_objects(label, kept_objects, new_boxes)
            if changes_tags:
                self.project.set_tags(label, sorted(tags))
            if changes_status and self._status != "WORKING":
                self.project.set_status(label, self._status)
        if is_new or (changes_boxes and not label.objects):
            return Outcome("created")
        is_changed = changes_boxes or changes_tags or changes_status
        reason = REVIEWED if has_other_boxes and is_protected else ""
        return Outcome("updated" if is_changed else "unchanged", reason)

    def _create_label(self, item):
        """Uploads an image; returns its label, None in a dry run."""
        if not self._upload_images:
            raise InputError(
                f"{item.name}: the project does not have this image; set "
                "--upload_images=true to upload it, or --dataset to the dataset that "
                "it is in."
            )
        project.check_names(item.dataset, item.key)
        encoded = self._read_image(item)
        if encoded is None:
            raise InputError(
                f"{item.name}: expected its file among the images, got none; is it "
                "missing from --images?"
            )
        if self._dry_run:
            return None
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
            raise InputError(
                f"{message}. The label has objects, so keep it; check whether the "
                "Suite shows the image. Without --upload_images the image is not "
                "checked."
            )
        raise InputError(
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
