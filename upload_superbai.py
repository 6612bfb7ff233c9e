"""Sends boxes to a project of the Superb AI Suite, as labels to correct there.

    python upload_superbai.py --project "My project" --annotations detections.json

The boxes are those that detect.py found, or any COCO JSON or Pascal VOC XML. With
`--upload_images=true --images …` pictures that the Suite lacks are uploaded first. The
credentials are the environment variables SPB_ACCESS_KEY and SPB_TEAM_NAME. Running it
again changes nothing, and goes on where an earlier run was cut off. Writes
`upload.json`; where pictures have failed, the exit status is 2.
"""

import contextlib
import csv
import hashlib
import io
import json
import tempfile
import threading
import uuid
from collections import Counter, deque
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import NamedTuple

import valohai
from absl import logging

import step
import step_inputs
import suite
from yolov3_tf2 import annotations, archives, picture_index, pictures
from yolov3_tf2.errors import InputError

PARAMETERS = {
    "project": {
        "default": "",
        "description": "Name of the Suite's project, an image project with the classes "
        "of the boxes.",
    },
    "dataset": {
        "default": "",
        "description": "Dataset that the pictures are in; empty: the first folder of "
        "each picture's name, which is what detections.json has.",
    },
    "score_threshold": {
        "default": 0.0,
        "min": 0.0,
        "max": 1.0,
        "description": "Boxes of a lower score are not sent; boxes without a score "
        "always are.",
    },
    "upload_images": {
        "default": False,
        "description": "Upload the pictures that the project lacks.",
    },
    "tag": {
        "default": "",
        "description": "Tag that all pictures get, such as train or test.",
    },
    "status": {
        "default": "keep",
        "choices": ["keep", "WORKING", "SUBMITTED", "SKIPPED"],
        "description": "Status that labels get which are sent, or which nobody has "
        "submitted or skipped.",
    },
    "replace": {
        "default": "ours",
        "choices": ["ours", "all", "none"],
        "description": "What goes from a label that has objects: boxes of earlier "
        "uploads that nobody has changed (ours); people's objects too (all); nothing, "
        "and nothing is added (none).",
    },
    "review_pictures": {
        "default": 0,
        "min": 0,
        "max": 1000000,
        "description": "Tag so many pictures with review: the first of review.csv.",
    },
    "dry_run": {
        "default": False,
        "description": "Say what would be done, and change nothing.",
    },
}
INPUTS = {
    "annotations": {
        "default": [],
        "optional": False,
        "description": "Boxes: detections.json of the detect step, COCO JSON, Pascal "
        "VOC XML, or zips or folders of these.",
    },
    "images": {
        "default": [],
        "optional": True,
        "description": "Pictures to upload: files, zips or folders.",
    },
    "review": {
        "default": [],
        "optional": True,
        "description": "review.csv of the detect step.",
    },
}
valohai.prepare(
    step="upload-superbai",
    image="python:3.11-slim",
    default_parameters=PARAMETERS,
    default_inputs=INPUTS,
)

# Requests to the Suite at a time. It answers in tenths of a second, and counts.
PARALLEL = 8
# When so many fail one after the other, the rest would too.
FAILURES_IN_A_ROW = 20
LOGGED_FAILURES = 10
REVIEW_TAG = "review"
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
    """What has become of a picture: `created`, `updated`, `unchanged` or `failed`."""

    result: str
    reason: str = ""


def main():
    values = step.parameters(PARAMETERS, INPUTS)
    if not values["project"]:
        raise InputError("--project: expected the name of a project of the Suite.")
    annotated, left_out = annotations.read(
        step_inputs.input_paths("annotations", folders=True)
    )
    review = read_review(values, step_inputs.input_paths("review", optional=True))
    items = make_items(annotated, values, review, left_out)
    for reason, number in left_out.items():
        logging.info("left out or changed: %d %s", number, reason)
    image_paths = step_inputs.input_paths("images", optional=True, folders=True)
    if values["upload_images"] and not image_paths:
        raise InputError(
            "--upload_images: expected the pictures too; give them with --images."
        )
    # The SDK prints what nobody asked for; the step's own lines are metadata.
    with contextlib.redirect_stdout(io.StringIO()), contextlib.ExitStack() as stack:
        project = suite.Suite(values["project"])
        project.check_classes(name for item in items for name, _ in item.boxes.values())
        logging.info(
            "project '%s': %d pictures, %d boxes",
            values["project"],
            len(items),
            sum(len(item.boxes) for item in items),
        )
        encoded_of = open_images(image_paths, items, annotated, stack)
        uploader = Uploader(project, values, encoded_of)
        outcomes, stopped = run_all(uploader, items)
    return report(values, items, outcomes, stopped)


def read_review(values, paths):
    """The names of the pictures that get the tag for a review, a set."""
    number = values["review_pictures"]
    if not number:
        return set()
    if not paths:
        raise InputError(
            "--review_pictures: expected review.csv of the detect step; give it with "
            "--review."
        )
    with paths[0].open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    if rows and "file_name" not in rows[0]:
        raise InputError(
            f"{paths[0]}: expected a column file_name, got {', '.join(rows[0])}; is it "
            "the review.csv of detect.py?"
        )
    return {archives.normalise(row["file_name"]) for row in rows[:number]}


def make_items(annotated, values, review, left_out):
    """What is to be sent.

    Args:
        annotated: list of `annotations.Annotated`.
        values: the step's parameters.
        review: set of the names of pictures to review.
        left_out: `Counter` of what is left out, added to.

    Raises:
        InputError: a picture's dataset is not known, or two have the same name.
    """
    items, names = [], {}
    for picture in annotated:
        dataset, key = identify(picture, values["dataset"])
        if (dataset, key) in names:
            raise InputError(
                f"{picture.where}: '{key}' of the dataset '{dataset}' is there twice, "
                f"also in {names[dataset, key]}."
            )
        names[dataset, key] = picture.where
        boxes = {}
        for box in picture.boxes:
            if box.score is not None and box.score < values["score_threshold"]:
                left_out["boxes under the score threshold"] += 1
                continue
            left, top, right, bottom = box.xyxy
            size = (left, top, right - left, bottom - top)
            identity = object_id(dataset, key, box.class_name, size)
            if identity in boxes:
                left_out["boxes that are there twice"] += 1
            boxes[identity] = (box.class_name, size)
        tags = {values["tag"]} - {""}
        if picture.name in review:
            tags.add(REVIEW_TAG)
        items.append(Item(dataset, key, boxes, tags))
    return items


def identify(picture, dataset):
    """Returns the dataset and the key of a picture in the Suite."""
    if dataset:
        return dataset, picture.name.removeprefix(f"{dataset}/")
    first, slash, rest = picture.name.partition("/")
    if not slash:
        raise InputError(
            f"{picture.where}: the picture '{picture.name}' has no folder that names "
            "its dataset; give the dataset with --dataset."
        )
    return first, rest


def object_id(dataset, key, name, box):
    """The id of a box in the Suite: a UUID that tells its picture, class and place.

    So a box that is sent again is known, and so is one that somebody has changed.
    """
    text = json.dumps([dataset, key, name, *map(float, box)], ensure_ascii=False)
    digest = hashlib.sha256(text.encode("utf-8")).hexdigest()
    marked = uuid.UUID(_MARK + digest[:24])
    return str(uuid.UUID(bytes=marked.bytes, version=5))


def is_ours(stored, dataset, key):
    """Whether an object of the Suite is of this step, and nobody has changed it."""
    box = suite.box_of(stored)
    if box is None or not str(stored["id"]).startswith(_MARK):
        return False
    return stored["id"] == object_id(dataset, key, *box)


def open_images(paths, items, annotated, stack):
    """Returns a function from an `Item` to its picture's bytes, None without one."""
    if not paths:
        return lambda item: None
    loose = [path for path in paths if not archives.is_archive(path)]
    groups = [path for path in paths if path not in loose] + [loose] * bool(loose)
    opened = [stack.enter_context(archives.open_archive(group)) for group in groups]
    identities = [(item.dataset, item.key) for item in items]
    entries = picture_index.match(identities, opened, set(identities)).entries
    sizes = dict(zip(identities, (p.size for p in annotated), strict=True))
    lock = threading.Lock()

    def encoded_of(item):
        identity = (item.dataset, item.key)
        entry = entries.get(identity)
        if entry is None:
            return None
        with lock:  # A zip is one file, read from one place at a time.
            encoded = entry.archive.read(entry.name)
        # As its boxes see it: without an EXIF orientation, which the Suite would heed.
        where = f"{entry.archive.name}: {entry.name}"
        return pictures.prepare(encoded, where, sizes[identity]).encoded

    return encoded_of


class Uploader:
    """Brings the Suite's labels to what they are to be, picture by picture."""

    def __init__(self, project, values, encoded_of):
        """Takes a `suite.Suite`, the step's parameters, and see `open_images`."""
        self.suite = project
        self._values = values
        self._encoded_of = encoded_of

    def __call__(self, item):
        """Does what is to be done for one `Item`; returns the `Outcome`."""
        try:
            return self._bring(item)
        except suite.RefusedError:
            raise
        except (InputError, OSError) as error:
            return Outcome("failed", str(error))

    def _bring(self, item):
        where, dry_run = f"{item.dataset}/{item.key}", self._values["dry_run"]
        label = self.suite.find(item.dataset, item.key)
        is_new, is_sent = label is None, False
        if is_new:
            is_sent = self._upload(item, where)
            if dry_run:
                return Outcome("created")
            label = self.suite.find(item.dataset, item.key)
            if label is None:
                raise InputError(f"{where}: uploaded, but the Suite does not list it.")
        may_lack_picture = self._values["upload_images"] and not is_sent
        if may_lack_picture and not self.suite.has_picture(label):
            raise InputError(
                f"{where}: the Suite has its label, but not its picture, as an earlier "
                "upload broke off; delete it there and run again."
            )
        kept, added = self._plan(item, label)
        before = [one["id"] for one in label.objects]
        changes_boxes = before != [*(one["id"] for one in kept), *added]
        tags = set(label.tags) | item.tags
        status = self._values["status"]
        changes_status = status not in ("keep", label.status) and (
            changes_boxes or is_new or label.status == "WORKING"
        )
        if not dry_run:
            if changes_boxes:
                self.suite.write(label, kept, added)
            if tags != set(label.tags):
                self.suite.set_tags(label, sorted(tags))
            if changes_status:
                self.suite.set_status(label, status)
        if is_new or (changes_boxes and not before):
            return Outcome("created")
        changed = changes_boxes or changes_status or tags != set(label.tags)
        return Outcome("updated" if changed else "unchanged")

    def _upload(self, item, where):
        if not self._values["upload_images"]:
            raise InputError(
                f"{where}: the project has no such picture; --upload_images uploads "
                "it, and --dataset says which dataset it is in."
            )
        encoded = self._encoded_of(item)
        if encoded is None:
            raise InputError(f"{where}: expected its picture among the images.")
        if self._values["dry_run"]:
            return False
        with tempfile.NamedTemporaryFile() as file:
            file.write(encoded)
            file.flush()
            return self.suite.upload(file.name, item.dataset, item.key)

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


def run_all(uploader, items):
    """Uploads all, some at a time.

    Returns:
        A list of the `Outcome` of each item, None of those not begun; and why it was
        stopped before the end, an empty string if it was not.
    """
    outcomes, stopped, in_a_row = [None] * len(items), "", 0
    left, running = deque(enumerate(items)), {}
    bar = step.progress(total=len(items), unit=" pictures")
    with bar, ThreadPoolExecutor(PARALLEL) as pool:
        try:
            while left or running:
                # No more than are needed: what was not begun need not be taken back.
                while left and len(running) < PARALLEL:
                    number, item = left.popleft()
                    running[pool.submit(uploader, item)] = number
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    outcome = outcomes[running.pop(future)] = future.result()
                    bar.update()
                    in_a_row = in_a_row + 1 if outcome.result == "failed" else 0
                if in_a_row >= FAILURES_IN_A_ROW:
                    raise suite.RefusedError(
                        f"{in_a_row} pictures failed one after the other, the last as "
                        f"{outcome.reason}"
                    )
        except suite.RefusedError as error:
            stopped = str(error)
        finally:
            uploader.suite.stopped.set()  # Those that run end with their next failure.
            with step.signals_held():
                wait(running)
    for future, number in running.items():
        if not future.exception():
            outcomes[number] = future.result()
    return outcomes, stopped


def report(values, items, outcomes, stopped):
    """Says what was done, in the log, as metadata and as `upload.json`.

    Returns:
        The step's exit status.
    """
    counts = Counter(outcome.result for outcome in outcomes if outcome)
    results = {
        name: counts[name] for name in ("created", "updated", "unchanged", "failed")
    }
    rows = [
        {"dataset": item.dataset, "key": item.key, **outcome._asdict()}
        for item, outcome in zip(items, outcomes, strict=True)
        if outcome
    ]
    facts = {
        "project": values["project"],
        "dry_run": values["dry_run"],
        **results,
        "not_begun": len(items) - len(rows),
        "stopped": stopped,
        "pictures": rows,
    }
    with step.staged_outputs() as folder:
        text = json.dumps(facts, ensure_ascii=False, indent=1)
        (folder / "upload.json").write_text(text + "\n", encoding="utf-8")
    failures = [row["reason"] for row in rows if row["result"] == "failed"]
    for reason in failures[:LOGGED_FAILURES]:
        logging.warning("failed: %s", reason)
    if len(failures) > LOGGED_FAILURES:
        left = len(failures) - LOGGED_FAILURES
        logging.warning("failed: %d more, see upload.json", left)
    logging.info(
        "%s'%s': %s",
        "what would be done in " if values["dry_run"] else "",
        values["project"],
        ", ".join(f"{number} {name}" for name, number in results.items()),
    )
    step.log_metadata(**results, not_begun=facts["not_begun"])
    if stopped:
        raise InputError(
            f"stopped with {facts['not_begun']} of {len(items)} pictures not begun: "
            f"{stopped} Run again, it goes on with what is left."
        )
    return 2 if failures else 0


if __name__ == "__main__":
    step.run(main)
