"""Writes one label of the Suite while people may be at work on it."""

from superbai.upload.box_id import is_ours, stored_id
from superbai.upload.stored_label import ChangedError
from yolov3_tf2.errors import InputError

# After this many changes of a label by somebody else while it is written, it is left.
MAX_CHANGES = 5
# Why a later upload cannot recognise boxes: the Suite has stored them under other ids
# than sent; or with the ids, but with other numbers or with properties.
OTHER_IDS = "other ids"
STORED_OTHERWISE = "stored otherwise"


class LabelWriter:
    """Does what a plan says; if somebody changes the label, plans anew.

    Attributes:
        label: the `stored_label.Label` as it was last read or written.
        plan: the `label_plan.Plan` for it.
        reason: `OTHER_IDS`, `STORED_OTHERWISE`, or empty.
    """

    def __init__(self, project, item, label, *, make_plan, status):
        """Makes the plan.

        Args:
            project: the `project.Project`.
            item: the `upload_plan.Item`.
            label: its `stored_label.Label`.
            make_plan: function from an item and a label to a `label_plan.Plan`.
            status: status of the label in the end, see `label_plan.make_plan`.
        """
        self.label, self.plan, self.reason = label, make_plan(item, label), ""
        self._project, self._item, self._status = project, item, status
        self._make_plan = make_plan
        self._needs_counts = False
        # The label before it was set to WORKING; its status when boxes were written.
        self._reopened = self._written_as = None

    @property
    def was_decided_meanwhile(self):
        """Whether somebody has submitted or skipped it while boxes were written."""
        expected = (None, self._written_as, self._status)
        is_other = self._written_as is not None and self.label.status not in expected
        return is_other and self.label.is_decided

    def write(self):
        """Brings the label in line.

        Raises:
            InputError: the Suite fails, or the label is changed all the time. If it was
                reopened, its status is set again, or the message says what it was.
        """
        try:
            for _ in range(MAX_CHANGES):
                try:
                    return self._try_to_write()
                except ChangedError:
                    self._read_again()
            raise InputError(
                f"{self._item.name}: its label was changed {MAX_CHANGES} times while "
                "this run tried to write it; run again when nobody works on it."
            )
        except InputError as error:
            if self._reopened is None:
                raise
            raise self._close_again(error) from None

    def _try_to_write(self):
        plan, project = self.plan, self._project
        if plan.changes_status and plan.changes_boxes and self.label.is_decided:
            # Before the boxes: if the run is cut off here, new boxes must not count as
            # submitted, and the next run must see what is left to do.
            reopened = self.label
            self.label = project.set_status(self.label, "WORKING")
            self._reopened = reopened
        if plan.changes_boxes:
            self._write_objects(plan.kept_objects, plan.new_boxes)
            reason = _why_unrecognised(self._item, plan.new_boxes, self.label.objects)
            self.reason = self.reason or reason
        elif self._needs_counts:
            project.check_can_keep(self.label, self.label.objects)
            self._write_objects(self.label.objects, {})
        status = self.label.status
        if not self._item.tags <= set(self.label.tags):
            self.label = project.add_tags(self.label, self._item.tags)
        elif plan.changes_boxes and not plan.changes_status:
            self.label = project.look_again(self.label)
        if self.label.status != status:
            raise ChangedError(f"{self._item.name}: somebody has set its status.")
        if plan.changes_status and status != self._status:
            self.label = project.set_status(self.label, self._status)

    def _write_objects(self, kept_objects, new_boxes):
        # The Suite gets the number of the objects before the objects.
        self._needs_counts = True
        self.label = self._project.set_objects(self.label, kept_objects, new_boxes)
        self._needs_counts, self._written_as = False, self.label.status

    def _read_again(self):
        item = self._item
        label = self._project.find_label(item.dataset, item.key)
        if label is None:
            raise InputError(f"{item.name}: it was just deleted.") from None
        self.label, self.plan = label, self._make_plan(item, label)

    def _close_again(self, error):
        """Sets the status of a label again that was reopened; returns what to raise."""
        before = self._reopened
        try:
            now = self._project.find_label(self._item.dataset, self._item.key)
            if now is None or now.is_decided:
                return error
            if now.objects == before.objects:
                self._project.set_status(now, before.status)
                return error
        except InputError:
            pass  # The one before it says more.
        return type(error)(
            f"{str(error).rstrip('.')}; its status was {before.status} and is WORKING "
            "now: run again, or set it in the Suite."
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
