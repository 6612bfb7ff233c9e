"""Brings the labels of a Suite project in line with a plan.

`Uploader` does this for one image, `upload_run` for all of them.
"""

from typing import NamedTuple

from superbai.upload import label_merge
from superbai.upload.box_id import is_ours, stored_id
from superbai.upload.failures import MissingBytesError, RefusedError, SuiteError
from superbai.upload.stored_label import ChangedError
from yolov3_tf2.errors import InputError

# After this many changes of a label by somebody else while it is written, it is left.
MAX_CHANGES = 5
# Reason of an `Outcome` whose boxes stay because people have submitted or skipped them.
REVIEWED = "reviewed"
# Reason of an `Outcome` whose boxes the Suite has stored under other ids than sent.
OTHER_IDS = "other ids"
# Or with the ids that were sent, but with other numbers or with properties.
STORED_OTHERWISE = "stored otherwise"


class Outcome(NamedTuple):
    """The result of one image.

    Attributes:
        result: `created`, `updated`, `unchanged` or `failed`.
        reason: the error of a failed image; `REVIEWED` if other boxes were not sent
            because the label is submitted or skipped; `OTHER_IDS` or
            `STORED_OTHERWISE` if a later upload cannot recognise those that were sent;
            else empty.
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
        except RefusedError:
            raise
        except (InputError, OSError) as error:
            return Outcome(
                "failed",
                str(error),
                isinstance(error, SuiteError),
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
            reason = _why_unrecognised(item, plan.new_boxes, label.objects)
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


def _why_unrecognised(item, new_boxes, objects):
    """Returns why a later upload will take new boxes for people's; empty if not.

    Args:
        item: an `upload_plan.Item`.
        new_boxes: dict like `Item.boxes` of those that were sent.
        objects: list of the label's objects as the Suite has stored them.
    """
    by_id = {stored_id(stored): stored for stored in objects}
    if not set(new_boxes) <= set(by_id):
        return OTHER_IDS
    known = (is_ours(by_id[each], item.dataset, item.key) for each in new_boxes)
    return "" if all(known) else STORED_OTHERWISE
