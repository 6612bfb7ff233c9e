"""Writes the changes of images of Superb AI's new platform: boxes, old boxes and tags.

Between a look at an image and a write, people go on working. So right before each try
of a request, it is read again of which images somebody has decided, and which boxes of
earlier uploads are still as they were.
"""

from collections import Counter
from typing import NamedTuple

from superbai.platform import platform_assets, platform_plan, platform_project
from superbai.platform.platform_errors import PlatformError
from superbai.upload.failures import RefusedError
from superbai.upload.upload_run import MAX_FAILURES_IN_A_ROW

# What the platform answers where something is wrong with one of the rows.
_ABOUT_ROWS = (400, 404, 409, 413, 422)


class Image(NamedTuple):
    """An image whose boxes or tags change.

    Attributes:
        number: its place among the items.
        key: its name, for messages.
        asset: the `platform_assets.Asset`.
        change: the `platform_plan.Change`.
        new_tags: tuple of the tags that it does not have yet.
        num_stored: number of annotations that it has.
    """

    number: int
    key: str
    asset: platform_assets.Asset
    change: platform_plan.Change
    new_tags: tuple
    num_stored: int

    @property
    def is_crowded(self):
        """Whether its old and its new annotations do not fit together."""
        limit = platform_plan.MAX_ANNOTATIONS
        return self.num_stored + len(self.change.rows) > limit


class Writer:
    """Writes the changes of images, some at a time.

    Attributes:
        failures: dict from the number of an image to the reason why it failed.
        num_created: Counter of the boxes that are stored, by the number of the image.
        cleared: set of the numbers of images whose old boxes are removed.
        tagged: set of the numbers of images that have their tags.
    """

    def __init__(self, project):
        """Stores the `platform_project.PlatformProject`."""
        self._project = project
        self.failures, self.num_created = {}, Counter()
        self.cleared, self.tagged = set(), set()
        self._failures_in_a_row, self._keeps_boxes = 0, False

    def write(self, images):
        """Writes the changes of up to `MAX_ASSETS` images, a list of `Image`.

        Raises:
            PlatformError, RefusedError: the platform failed, or every image fails. The
                attributes tell what is done.
        """
        # Where not both fit, the old boxes go first; an error there loses none of
        # people's.
        self._delete([image for image in images if image.is_crowded])
        # Else the new ones: if the run is cut off here, no image has lost any.
        self._create(self._unfailed(images))
        self._delete([i for i in self._unfailed(images) if not i.is_crowded])
        self._tag(self._unfailed(images))

    def _unfailed(self, images):
        return [image for image in images if image.number not in self.failures]

    def _create(self, images):
        """Creates the new boxes of images, in requests of as many rows as fit."""
        pieces = [
            (image, image.change.rows[first : first + platform_project.MAX_ROWS])
            for image in images
            for first in range(0, len(image.change.rows), platform_project.MAX_ROWS)
        ]
        if pieces and not self._keeps_boxes:
            # Alone, to see what becomes of its boxes before many are sent.
            self._create_batch(pieces[:1])
            pieces = pieces[1:]
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

        def select_rows():
            self._project.read_decisions()
            return [
                row
                for image, rows in batch
                if image.asset.id not in self._project.decided_ids
                for row in rows
            ]

        try:
            created = self._project.create(select_rows)
        except PlatformError as error:
            if error.status not in _ABOUT_ROWS:
                raise
            if len(batch) > 1:
                middle = len(batch) // 2
                self._create_batch(batch[:middle])
                self._create_batch(batch[middle:])
                return
            self._note_failure(batch[0][0], error)
            return
        self._failures_in_a_row = 0
        counts = Counter(row["asset_id"] for row in created)
        for image in {image.number: image for image, _ in batch}.values():
            self.num_created[image.number] += counts[image.asset.id]
        if created and not self._keeps_boxes:
            self._check_stored([image for image, _ in batch], created)

    def _note_failure(self, image, error):
        """Notes that the boxes of an image are refused.

        Raises:
            RefusedError: those of many images in a row are.
        """
        reason, done = str(error), self.num_created[image.number]
        if done:
            total = len(image.change.rows)
            reason += f" {done} of its {total} new boxes are stored."
        self.failures[image.number] = f"{image.key}: {reason}"
        self._failures_in_a_row += 1
        if self._failures_in_a_row >= MAX_FAILURES_IN_A_ROW:
            raise RefusedError(
                f"{MAX_FAILURES_IN_A_ROW} images failed in a row, the last with: "
                f"{error}"
            ) from error

    def _check_stored(self, images, created):
        """Checks once that later uploads will recognise the boxes of this one.

        Raises:
            RefusedError: they will not, so each would only add boxes.
        """
        stored = [each for each in self._read(images) if platform_plan.is_ours(each)]
        ids = {str(each["id"]).lower() for each in stored}
        if not any(row["id"] in ids for row in created):
            raise RefusedError(
                f"{images[0].key}: the platform has stored its {len(created)} boxes "
                "under other ids or in other places than it was sent, so no later run "
                "could recognise and replace them; remove them there."
            )
        self._keeps_boxes = True

    def _read(self, images):
        """Returns the annotations of images, a list."""
        return self._project.read_annotations(
            list({image.asset.id: None for image in images})
        )

    def _delete(self, images):
        """Deletes the boxes of earlier uploads, those that are still as they were."""
        by_id = {old_id: image for image in images for old_id in image.change.old_ids}
        ids, decided = sorted(by_id), set()
        for first in range(0, len(ids), platform_project.MAX_DELETED):
            chunk = ids[first : first + platform_project.MAX_DELETED]
            in_chunk = {by_id[each].number: by_id[each] for each in chunk}

            def select_ids(chunk=frozenset(chunk), in_chunk=in_chunk):
                stored = self._read(in_chunk.values())
                self._project.read_decisions()
                decided_ids = self._project.decided_ids
                decided.update(
                    n for n, i in in_chunk.items() if i.asset.id in decided_ids
                )
                return sorted(
                    each["id"]
                    for each in stored
                    if each.get("id") in chunk
                    and by_id[each["id"]].number not in decided
                    and platform_plan.is_ours(each)
                )

            doubtful = self._project.delete(select_ids)
            if doubtful:
                left = set(select_ids()) & set(doubtful)
                for number, count in Counter(by_id[i].number for i in left).items():
                    self.failures[number] = (
                        f"{in_chunk[number].key}: the platform has kept "
                        f"{count} boxes of an earlier run that were to be removed; run "
                        "again."
                    )
        self.cleared |= {image.number for image in images} - decided

    def _tag(self, images):
        """Adds the tags that images do not have yet."""
        by_tags = {}
        for image in images:
            if image.new_tags:
                by_tags.setdefault(image.new_tags, []).append(image)
        for tags, tagged in sorted(by_tags.items()):
            try:
                ids = [image.asset.id for image in tagged]
                missing = set(self._project.add_tags(ids, list(tags)))
                reason = f"the platform has not stored the tags {', '.join(tags)}."
            except PlatformError as error:
                if error.status not in _ABOUT_ROWS:
                    raise
                missing, reason = {image.asset.id for image in tagged}, str(error)
            for image in tagged:
                if image.asset.id in missing:
                    self.failures[image.number] = f"{image.key}: {reason}"
        self.tagged |= {image.number for image in images} - self.failures.keys()
