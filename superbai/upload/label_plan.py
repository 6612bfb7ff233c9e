"""What is to be done about one label of the Suite, as it was read."""

from typing import NamedTuple

from superbai.upload import label_merge


class Plan(NamedTuple):
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


def make_plan(item, label, *, replace, status, project):
    """Returns the `Plan` for a label.

    Args:
        item: an `upload_plan.Item`.
        label: its `stored_label.Label`.
        replace: see `label_merge.merge_objects`.
        status: `keep`, or the status of labels that are changed or that nobody has
            submitted or skipped.
        project: the `project.Project`.

    Raises:
        InputError: the label cannot be written, see `Project.check_can_keep`.
    """
    kept_objects, new_boxes = label_merge.merge_objects(item, label.objects, replace)
    has_other_boxes = bool(new_boxes) or len(kept_objects) < len(label.objects)
    # Whoever submitted or skipped a label has decided which boxes are right.
    is_protected = label.is_decided and status == "keep" and replace != "all"
    changes_boxes = has_other_boxes and not is_protected
    if changes_boxes:
        project.check_can_keep(label, kept_objects)
    return Plan(
        kept_objects,
        new_boxes,
        changes_boxes,
        not item.tags <= set(label.tags),
        status not in ("keep", label.status)
        and (changes_boxes or not label.is_decided),
        has_other_boxes and is_protected,
    )
