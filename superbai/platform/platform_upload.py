"""Sends boxes to a project of Superb AI's new platform, as pre-labels of a model.

Requests are for many images at a time, so that `uploader.Uploader`, which brings one
label after the other in line, does not fit.
"""

import threading

from absl import logging

from superbai.platform import platform_plan, platform_project
from superbai.platform.platform_errors import PlatformError
from superbai.platform.platform_write import Image, Writer
from superbai.upload.failures import RefusedError
from superbai.upload.upload_run import start_thread
from superbai.upload.uploader import REVIEWED, Outcome
from yolov3_tf2.errors import InputError


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
        stopped: a `threading.Event` that is set once the run is told to stop.
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
        self._writer, self.stopped = Writer(project), threading.Event()

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
        # In a thread, so that a second signal ends the run while a request hangs.
        start_thread(lambda index: self._send_parts(index, bar), assets, events.put)
        while (event := events.get()) is None:
            if self.stopped.is_set():
                return KeyboardInterrupt()
            self.stopped.set()
            logging.info(
                "interrupted: finishing at most %d images in progress; interrupt again "
                "to stop now",
                platform_project.MAX_ASSETS,
            )
        error = event.exception()
        if error is None and None not in self.outcomes:
            return None
        if self.stopped.is_set() and (error is None or isinstance(error, InputError)):
            # An error would have been tried again.
            return KeyboardInterrupt()
        is_platform_failure = isinstance(error, PlatformError)
        return RefusedError(str(error)) if is_platform_failure else error

    def _send_parts(self, assets, bar):
        found = self._find_assets(assets)
        bar.update(len(self._items) - len(found))
        for first in range(0, len(found), platform_project.MAX_ASSETS):
            if self.stopped.is_set():
                return
            part = found[first : first + platform_project.MAX_ASSETS]
            self._send_part(part)
            bar.update(len(part))

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
            boxes = [
                (self._project.classes.box_ids[class_name], xywh)
                for class_name, xywh in item.boxes.values()
            ]
            there = stored[asset.id]
            change = platform_plan.plan_change(asset.id, boxes, there, self._replace)
            self.num_left_out += change.num_left_out
            self.num_kept += sum(not platform_plan.is_ours(each) for each in there)
            total = len(change.rows) + change.num_kept
            if total > platform_plan.MAX_ANNOTATIONS:
                self._fail(
                    number,
                    f"{item.key}: expected at most {platform_plan.MAX_ANNOTATIONS} "
                    f"boxes, got {total} with those that it has; set "
                    "--score_threshold.",
                )
                continue
            tags = tuple(sorted(item.tags - set(asset.tags)))
            images.append(Image(number, item.key, asset, change, tags, len(there)))
        if self._dry_run:
            for image in images:
                is_decided = image.asset.id in self._project.decided_ids
                self.outcomes[image.number] = _describe(image, is_decided)
            return
        try:
            self._writer.write(images)
        except BaseException:
            self._note_outcomes(images, is_over=False)
            raise
        self._note_outcomes(images, is_over=True)

    def _note_outcomes(self, images, *, is_over):
        """Notes what is done of each image.

        Args:
            images: list of `Image`.
            is_over: whether all was tried; else what is unfinished is left to the next
                run.
        """
        writer = self._writer
        for image in images:
            number, change = image.number, image.change
            num_created, num_new = writer.num_created[number], len(change.rows)
            is_cleared = not change.old_ids or number in writer.cleared
            has_boxes = num_created == num_new and is_cleared
            has_tags = not image.new_tags or number in writer.tagged
            is_touched = num_created or (change.old_ids and number in writer.cleared)
            state = f"{num_created} of its {num_new} new boxes are stored" + (
                "" if is_cleared else ", and its old ones are not all removed"
            )
            if number in writer.failures:
                self._fail(number, writer.failures[number])
            elif has_boxes and has_tags:
                self.outcomes[number] = _describe(image, is_decided=False)
            elif is_touched and not is_over:
                tags = "" if has_tags else ", without its new tags"
                self._fail(number, f"{image.key}: the run has ended: {state}{tags}.")
            elif is_touched:
                self._fail(
                    number,
                    f"{image.key}: somebody submitted, approved or skipped it while "
                    f"it was written: {state}; look at it on the platform.",
                )
            elif is_over:
                self.outcomes[number] = _describe(image, is_decided=True)

    def _read(self, assets):
        """Returns the annotations of each image, a dict from its id."""
        stored = {asset.id: [] for asset in assets}
        for annotation in self._project.read_annotations(list(stored)):
            if annotation.get("asset_id") in stored:
                stored[annotation["asset_id"]].append(annotation)
        return stored

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


def _describe(image, is_decided):
    """Returns the `Outcome` of an image that is done.

    Args:
        image: an `Image`.
        is_decided: whether its boxes stayed as people have submitted or skipped it.
    """
    changes_boxes = bool(image.change.rows or image.change.old_ids)
    is_protected = changes_boxes and is_decided
    if changes_boxes and not is_protected and not image.num_stored:
        return Outcome("created")
    is_changed = (changes_boxes and not is_protected) or image.new_tags
    return Outcome(
        "updated" if is_changed else "unchanged", REVIEWED if is_protected else ""
    )
