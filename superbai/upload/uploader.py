"""Brings the labels of a Suite project in line with a plan.

`Uploader` does this for one image, `upload_run` for all of them.
"""

from functools import partial
from typing import NamedTuple

from superbai.upload import label_merge
from superbai.upload.box_id import is_ours
from superbai.upload.failures import (
    MissingBytesError,
    RefusedError,
    SuiteError,
    UnsentBytesError,
)
from superbai.upload.label_plan import make_plan
from superbai.upload.label_writer import (  # noqa: F401  Reasons of an `Outcome`.
    OTHER_IDS,
    STORED_OTHERWISE,
    LabelWriter,
)
from yolov3_tf2.errors import InputError

# Reason of an `Outcome` whose boxes stay because people have submitted or skipped them.
REVIEWED = "reviewed"


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
        was_decided_meanwhile: whether somebody has submitted or skipped the label while
            its boxes were written.
    """

    result: str
    reason: str = ""
    is_suite_failure: bool = False
    lacks_bytes: bool = False
    num_stacked: int = 0
    was_decided_meanwhile: bool = False


class StoppedError(Exception):
    """The upload is to stop, and nothing of this image has been changed."""


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
        self._make_plan = partial(
            make_plan, replace=replace, status=status, project=project
        )
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
            self._check_has_image(item, label)
        writer = LabelWriter(
            self.project, item, label, make_plan=self._make_plan, status=self._status
        )
        plan = writer.plan
        gets_first_boxes = plan.changes_boxes and not label.objects
        is_changed = plan.changes_boxes or plan.changes_tags or plan.changes_status
        if not self._dry_run:
            writer.write()
        plan = writer.plan
        reason = writer.reason or REVIEWED * plan.is_protected
        result = "updated" if is_changed else "unchanged"
        if is_new or (gets_first_boxes and not plan.is_protected):
            result = "created"
        return Outcome(
            result,
            reason,
            num_stacked=label_merge.count_stacked(item, writer.label.objects),
            was_decided_meanwhile=writer.was_decided_meanwhile,
        )

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
        is_sent = self._send_image(item, encoded)
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
        # Also of bytes just sent: a proxy may have answered in place of the Suite.
        self._check_has_image(item, label)
        return label

    def _send_image(self, item, encoded):
        """Uploads an image, see `Project.upload_image`."""
        names = item.dataset, item.key
        try:
            return self.project.upload_image(encoded, *names)
        except UnsentBytesError:
            raise
        except SuiteError as error:
            # The Suite may have registered the name, and its answer was lost.
            try:
                is_registered = self.project.find_label(*names) is not None
            except SuiteError:
                is_registered = None
            if is_registered is False:
                raise
            known = (
                "but the Suite has its name"
                if is_registered
                else ("and it is not known whether the Suite has its name")
            )
            raise UnsentBytesError(
                f"{str(error).rstrip('.')}, {known}; if it is in the Suite without its "
                "file, delete it there, and run again."
            ) from None

    def _check_has_image(self, item, label):
        """Raises an `InputError` if the Suite has a label but not its image."""
        status = self.project.request_image(label)
        if status == 200:
            return
        message = (
            f"{label.name}: the Suite has its label, but answers {status} for its image"
        )
        if not all(is_ours(each, item.dataset, item.key) for each in label.objects):
            raise MissingBytesError(
                f"{message}. The label has objects of people, so keep it; check "
                "whether the Suite shows the image. Without --upload_images the image "
                "is not checked."
            )
        raise MissingBytesError(
            f"{message}. If the Suite does not show it either, an earlier upload was "
            "interrupted: delete it in the Suite and run again. If all images fail "
            "like this, a proxy or the Suite's storage is probably refusing them."
        )
