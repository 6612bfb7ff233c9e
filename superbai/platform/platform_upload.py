"""Sends boxes to a project of Superb AI's new platform, as pre-labels of a model.

Requests are for many images at a time, so that `uploader.Uploader`, which brings one
label after the other in line, does not fit.
"""

from typing import NamedTuple

from superbai.platform import platform_assets, platform_plan, platform_project
from superbai.platform.platform_errors import PlatformError
from superbai.upload.failures import RefusedError
from superbai.upload.upload_run import MAX_FAILURES_IN_A_ROW
from superbai.upload.uploader import REVIEWED, Outcome
from yolov3_tf2.errors import InputError

# What the platform answers where something is wrong with one of the rows.
_ABOUT_ROWS = (400, 404, 409, 413, 422)


class _Image(NamedTuple):
    """An image whose boxes change.

    Attributes:
        number: its place among the items.
        item: the `upload_plan.Item`.
        asset: the `platform_assets.Asset`.
        change: the `platform_plan.Change`.
    """

    number: int
    item: object
    asset: platform_assets.Asset
    change: platform_plan.Change


def check_parameters(values):
    """Checks that an upload uses nothing that only the Suite has.

    Args:
        values: dict of the parameters of the step.

    Raises:
        InputError: it does.
    """
    for name, expected in (
        ("dataset", ""),
        ("upload_images", False),
        ("status", "keep"),
    ):
        if values[name] != expected:
            raise InputError(
                f"--{name}: expected it for a project of the Suite only, got "
                f"{values[name]} for one of Superb AI's new platform; leave it out."
            )
    if values["replace"] == "all":
        raise InputError(
            "--replace: expected ours or none for Superb AI's new platform, got all; "
            "what people have drawn there is never removed."
        )


class Sender:
    """Brings the boxes of all images in line with a plan.

    Attributes:
        outcomes: list of the `uploader.Outcome` of each item; None if it is not done.
        num_kept: number of annotations of others that stay beside the boxes.
        num_left_out: see `platform_plan.Change`.
    """

    def __init__(self, project, items, *, replace, dry_run):
        """Stores what to send.

        Args:
            project: a `platform_project.PlatformProject`.
            items: list of `upload_plan.Item`; their datasets do not count.
            replace: see `platform_plan.plan_change`.
            dry_run: change nothing.
        """
        self._project, self._items = project, items
        self._replace, self._dry_run = replace, dry_run
        self.outcomes = [None] * len(items)
        self.num_kept = self.num_left_out = 0
        self._failures_in_a_row = 0

    def send_all(self, assets, events, bar):
        """Sends the boxes of all items, some images at a time.

        Args:
            assets: the images of the project, a `platform_assets.AssetIndex`.
            events: a `SimpleQueue` that gets None for each signal to stop.
            bar: progress bar with a method `update`.

        Returns:
            The exception that ended it early, or None. The caller raises it, as there
            is something to report first.
        """
        try:
            found = self._find_assets(assets)
            bar.update(len(self._items) - len(found))
            for first in range(0, len(found), platform_project.MAX_ASSETS):
                if not events.empty():
                    raise KeyboardInterrupt
                part = found[first : first + platform_project.MAX_ASSETS]
                self._send_part(part)
                bar.update(len(part))
        except PlatformError as error:
            if not events.empty():  # It would have been tried again.
                return KeyboardInterrupt()
            return RefusedError(str(error))
        except BaseException as error:  # Returned, see above.
            return error
        return None

    def _find_assets(self, assets):
        """Returns (number, item, asset) of each item whose image the project has."""
        found, by_asset = [], {}
        for number, item in enumerate(self._items):
            if item.problem:
                self._fail(number, item.problem)
                continue
            try:
                asset = assets.find(item.key)
                _check_size(item, asset)
            except InputError as error:
                self._fail(number, str(error))
                continue
            by_asset.setdefault(asset.id, []).append(item.key)
            found.append((number, item, asset))
        for number, _, asset in found:
            names = by_asset[asset.id]
            if len(names) > 1:
                self._fail(
                    number,
                    f"{', '.join(names[:3])}: the project has one image "
                    f"'{asset.filename}' for these {len(names)}, and does not say "
                    "whose it is; put each into a folder that is named like the id of "
                    "its image.",
                )
        return [each for each in found if self.outcomes[each[0]] is None]

    def _send_part(self, part):
        """Sends the boxes of up to `MAX_ASSETS` images."""
        stored = self._read([asset for _, _, asset in part])
        images = []
        for number, item, asset in part:
            change = platform_plan.plan_change(
                asset.id,
                [
                    (self._project.classes.box_ids[class_name], xywh)
                    for class_name, xywh in item.boxes.values()
                ],
                stored[asset.id],
                self._replace,
            )
            self.num_left_out += change.num_left_out
            self.num_kept += sum(not platform_plan.is_ours(s) for s in stored[asset.id])
            if len(change.rows) + change.num_kept > platform_plan.MAX_ANNOTATIONS:
                self._fail(
                    number,
                    f"{item.key}: expected at most {platform_plan.MAX_ANNOTATIONS} "
                    f"boxes, got {len(change.rows) + change.num_kept} with those that "
                    "it has; set --score_threshold.",
                )
                continue
            images.append(_Image(number, item, asset, change))
        # Whoever submitted or skipped an image has decided which boxes are right.
        open_images = [image for image in images if not image.asset.is_decided]
        if not self._dry_run:
            # First the new boxes: if the run is cut off here, no image has lost any.
            self._create(open_images)
            self._delete([i for i in open_images if self.outcomes[i.number] is None])
            self._tag([i for i in images if self.outcomes[i.number] is None])
        for image in images:
            if self.outcomes[image.number] is None:
                had_any = bool(stored[image.asset.id])
                self.outcomes[image.number] = _describe(image, had_any)

    def _read(self, assets):
        """Returns the annotations of each image, a dict from its id."""
        stored = {asset.id: [] for asset in assets}
        for annotation in self._project.read_annotations(list(stored)):
            if annotation.get("asset_id") in stored:
                stored[annotation["asset_id"]].append(annotation)
        return stored

    def _create(self, images):
        """Creates the new boxes of images, in requests of as many rows as fit."""
        pieces = [
            (image, image.change.rows[first : first + platform_project.MAX_ROWS])
            for image in images
            for first in range(0, len(image.change.rows), platform_project.MAX_ROWS)
        ]
        batch, num_rows = [], 0
        for image, rows in pieces:
            if num_rows + len(rows) > platform_project.MAX_ROWS:
                self._create_batch(batch)
                batch, num_rows = [], 0
            batch.append((image, rows))
            num_rows += len(rows)
        self._create_batch(batch)

    def _create_batch(self, batch):
        """Creates the boxes of one request; of each half if one of them is refused.

        So a row that the platform does not accept fails its own image only.
        """
        if not batch:
            return
        try:
            self._project.create([row for _, rows in batch for row in rows])
        except PlatformError as error:
            if error.status not in _ABOUT_ROWS:
                raise
            if len(batch) > 1:
                middle = len(batch) // 2
                self._create_batch(batch[:middle])
                self._create_batch(batch[middle:])
                return
            self._fail(batch[0][0].number, f"{batch[0][0].item.key}: {error}")
            self._failures_in_a_row += 1
            if self._failures_in_a_row >= MAX_FAILURES_IN_A_ROW:
                raise RefusedError(
                    f"{MAX_FAILURES_IN_A_ROW} images failed in a row, the last with: "
                    f"{error}"
                ) from error
        else:
            self._failures_in_a_row = 0

    def _delete(self, images):
        """Deletes the boxes of earlier uploads, those that are still as they were."""
        old_ids = {old_id for image in images for old_id in image.change.old_ids}
        if not old_ids:
            return
        # A second look: somebody may have edited one since the first.
        stored = self._read([image.asset for image in images if image.change.old_ids])
        ids = sorted(
            each["id"]
            for annotations in stored.values()
            for each in annotations
            if each.get("id") in old_ids and platform_plan.is_ours(each)
        )
        for first in range(0, len(ids), platform_project.MAX_DELETED):
            self._project.delete(ids[first : first + platform_project.MAX_DELETED])

    def _tag(self, images):
        """Adds the tags that images do not have yet."""
        by_tags = {}
        for image in images:
            tags = _new_tags(image)
            if tags:
                by_tags.setdefault(tags, []).append(image)
        for tags, tagged in sorted(by_tags.items()):
            try:
                self._project.add_tags([image.asset.id for image in tagged], list(tags))
            except PlatformError as error:
                if error.status not in _ABOUT_ROWS:
                    raise
                for image in tagged:
                    self._fail(image.number, f"{image.item.key}: {error}")

    def _fail(self, number, reason):
        self.outcomes[number] = Outcome("failed", reason)


def _check_size(item, asset):
    """Raises an `InputError` if the boxes are for an image of another size."""
    if item.size and asset.size and tuple(item.size) != tuple(asset.size):
        raise InputError(
            f"{item.key}: expected annotations for {asset.size[0]}x{asset.size[1]}, "
            f"the size of '{asset.filename}' on the platform, got some for "
            f"{item.size[0]}x{item.size[1]}; is it another image, or is it rotated?"
        )


def _new_tags(image):
    return tuple(sorted(image.item.tags - set(image.asset.tags)))


def _describe(image, had_any):
    """Returns the `Outcome` of an image that is done."""
    changes_boxes = bool(image.change.rows or image.change.old_ids)
    is_protected = changes_boxes and image.asset.is_decided
    if changes_boxes and not is_protected and not had_any:
        return Outcome("created")
    is_changed = (changes_boxes and not is_protected) or _new_tags(image)
    return Outcome(
        "updated" if is_changed else "unchanged", REVIEWED if is_protected else ""
    )
