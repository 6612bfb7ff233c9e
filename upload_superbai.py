"""Sends boxes to a project of the Superb AI Suite, as labels to correct there.

    python upload_superbai.py --project "My project" --annotations detections.json

The boxes are those that detect.py found, or any COCO JSON or Pascal VOC XML. With
`--upload_images=true --images …` pictures that the Suite lacks are uploaded first. The
credentials are the environment variables SPB_ACCESS_KEY and SPB_TEAM_NAME. Running it
again changes nothing, and goes on where an earlier run was cut off. Writes
`upload.json`, also when it is cut off; where pictures have failed, the exit status
is 2.
"""

import contextlib
import csv
import io
import json
import threading
import unicodedata
from collections import Counter
from queue import SimpleQueue

import valohai
from absl import logging

from superbai import image_matching, sdk, uploader
from superbai.project import Project
from valohai_step import runtime
from valohai_step.inputs import input_paths
from valohai_step.outputs import log_metadata, progress_bar, staged_outputs
from valohai_step.parameters import read_parameters
from yolov3_tf2.errors import InputError
from yolov3_tf2.files import annotations, archives
from yolov3_tf2.files.prepared_image import prepare_image
from yolov3_tf2.names import normalise_name, normalise_path

PARAMETERS = {
    "project": {
        "default": "",
        "category": "Where",
        "description": "Name of the Suite's project, an image project with the classes "
        "of the boxes.",
    },
    "dataset": {
        "default": "",
        "optional": True,
        "category": "Where",
        "description": "Dataset that the pictures are in; empty: the first folder of "
        "each picture's name, as in a detections.json of TFRecord files.",
    },
    "score_threshold": {
        "default": 0.0,
        "category": "Boxes",
        "min": 0.0,
        "max": 1.0,
        "description": "Boxes of a lower score are not sent; boxes without a score "
        "always are.",
    },
    "upload_images": {
        "default": False,
        "category": "Pictures",
        "description": "Upload the pictures that the project lacks.",
    },
    "tag": {
        "default": "",
        "optional": True,
        "category": "Pictures",
        "description": "Tag that all pictures get, such as train or test.",
    },
    "status": {
        "default": "keep",
        "category": "Boxes",
        "choices": ["keep", "WORKING", "SUBMITTED", "SKIPPED"],
        "description": "Status that labels get which are sent, or which nobody has "
        "submitted or skipped. With keep, those that somebody has are not sent, unless "
        "replace is all.",
    },
    "replace": {
        "default": "ours",
        "category": "Boxes",
        "choices": ["ours", "all", "none"],
        "description": "What goes from a label that has objects: boxes of earlier "
        "uploads that nobody has changed or given a property (ours); people's objects "
        "too (all); nothing, and nothing is added (none).",
    },
    "review_pictures": {
        "default": 0,
        "category": "Pictures",
        "min": 0,
        "max": 1000000,
        "description": "Tag so many pictures with review: the first of review.csv.",
    },
    "dry_run": {
        "default": False,
        "category": "Run",
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

LOGGED_FAILURES = 10
REVIEW_TAG = "review"


def main():
    values = read_parameters(PARAMETERS, INPUTS)
    if not values["project"]:
        raise InputError("--project: expected the name of a project of the Suite.")
    annotated, left_out = annotations.read_annotations(
        input_paths("annotations", folders=True)
    )
    identities = identify_all(annotated, values["dataset"])
    review = read_review(values, input_paths("review", optional=True))
    image_paths = input_paths("images", optional=True, folders=True)
    if values["upload_images"] and not image_paths:
        raise InputError(
            "--upload_images: expected the pictures too; give them with --images."
        )
    told = SimpleQueue()
    with contextlib.ExitStack() as held, contextlib.ExitStack() as stack:
        images = Images(image_paths, identities, stack)
        for number, picture in enumerate(annotated):
            if picture.size is None:
                size = images.size(identities[number])
                annotated[number] = annotations.clip_to_image(picture, size, left_out)
        items = make_items(annotated, identities, values, review, left_out)
        for reason, number in left_out.items():
            logging.info("left out or changed: %d %s", number, reason)
        # The SDK prints what nobody asked for; the step's own lines are metadata.
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        project = Project(values["project"])
        project.check_classes(name for item in items for name, _ in item.boxes.values())
        logging.info(
            "project '%s': %d pictures, %d boxes",
            values["project"],
            len(items),
            sum(len(item.boxes) for item in items),
        )
        sizes = dict(zip(identities, (p.size for p in annotated), strict=True))

        def encoded_of(item):
            identity = (item.dataset, item.key)
            return images.encoded(identity, sizes[identity])

        # What was done is worth a report, whatever ends it.
        held.enter_context(runtime.signals_held(told))
        with progress_bar(total=len(items), unit=" pictures") as bar:
            outcomes, ended_by = uploader.upload_all(
                uploader.Uploader(project, values, encoded_of), items, told, bar
            )
        stack.close()
        return report(values, items, outcomes, ended_by)


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
    try:
        # Also as Excel saves it, with a mark in front.
        with paths[0].open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{paths[0]}: expected a CSV file in UTF-8, as detect.py writes it, got "
            f"another one ({error}); was it saved in another encoding?"
        ) from error
    if rows and "file_name" not in rows[0]:
        raise InputError(
            f"{paths[0]}: expected a column file_name, got {', '.join(rows[0])}; is it "
            "the review.csv of detect.py?"
        )
    return {normalise_path(row["file_name"]) for row in rows[:number]}


def identify_all(annotated, dataset):
    """The names of pictures in the Suite.

    Args:
        annotated: list of `annotations.AnnotatedImage`.
        dataset: the one of all, an empty string where their names tell it.

    Returns:
        A list of (dataset, key).

    Raises:
        InputError: a picture's dataset is not known, or two have the same name.
    """
    by_identity = {}
    for picture in annotated:
        identity = identify(picture, dataset)
        twin = by_identity.setdefault(identity, picture)
        if twin is not picture:
            raise InputError(
                f"{picture.where}: '{identity[1]}' of the dataset '{identity[0]}' is "
                f"there twice, also in {twin.where}."
            )
    return list(by_identity)


def identify(picture, dataset):
    """Returns the dataset and the key of a picture in the Suite."""
    if dataset:
        # Names are composed, what was typed on a Mac need not be.
        folder = unicodedata.normalize("NFC", dataset)
        return dataset, picture.name.removeprefix(f"{folder}/")
    first, slash, rest = picture.name.partition("/")
    if not slash:
        raise InputError(
            f"{picture.where}: the picture '{picture.name}' has no folder that names "
            "its dataset; give the dataset with --dataset."
        )
    return first, rest


def make_items(annotated, identities, values, review, left_out):
    """What is to be sent.

    Args:
        annotated: list of `annotations.AnnotatedImage`.
        identities: list of their (dataset, key).
        values: the step's parameters.
        review: set of the names of pictures to review.
        left_out: `Counter` of what is left out, added to.

    Returns:
        A list of `uploader.Item`.
    """
    items = []
    for picture, (dataset, key) in zip(annotated, identities, strict=True):
        boxes = {}
        for box in picture.boxes:
            if box.score is not None and box.score < values["score_threshold"]:
                left_out["boxes under the score threshold"] += 1
                continue
            left, top, right, bottom = box.xyxy
            size = (left, top, right - left, bottom - top)
            name = normalise_name(box.class_name)
            identity = uploader.object_id(dataset, key, name, size)
            if identity in boxes:
                left_out["boxes that are there twice"] += 1
            boxes[identity] = (name, size)
        tags = {values["tag"]} - {""}
        if picture.name in review:
            tags.add(REVIEW_TAG)
        items.append(uploader.Item(dataset, key, boxes, tags))
    unknown = len(review - {picture.name for picture in annotated})
    if unknown:
        left_out["pictures of review.csv that the annotations do not have"] += unknown
    return items


class Images:
    """The pictures that were given."""

    def __init__(self, paths, identities, stack):
        """Finds them.

        Args:
            paths: list of `pathlib.Path`: pictures, zips and folders; may be empty.
            identities: list of the (dataset, key) of all pictures.
            stack: a `contextlib.ExitStack` that closes them.
        """
        loose = [path for path in paths if not archives.is_archive(path)]
        groups = [path for path in paths if path not in loose] + [loose] * bool(loose)
        opened = [stack.enter_context(archives.open_archive(path)) for path in groups]
        match = image_matching.match_images(identities, opened, set(identities))
        self._entries = match.entries
        # The name alone may be another picture's: cameras count from 1 again and again.
        self._doubtful = match.by_name
        self._lock = threading.Lock()

    def size(self, identity):
        """The (width, height) of a picture upright, None where it is not known."""
        if identity not in self._entries or identity in self._doubtful:
            return None
        try:
            prepared = prepare_image(*self._read(identity))
        except InputError:
            return None  # Who uploads it is told.
        return prepared.width, prepared.height

    def encoded(self, identity, size):
        """Returns the bytes of a picture, as boxes see it that are drawn on `size`.

        They have no EXIF orientation, which the Suite would heed. None where the
        picture was not given.
        """
        if identity not in self._entries:
            return None
        encoded, where = self._read(identity)
        if identity in self._doubtful:
            raise InputError(
                f"{'/'.join(identity)}: expected its picture among the images, got "
                f"{where}, which has its file name, but lies in another folder; if it "
                "is that one, put it into a folder of the right name."
            )
        try:
            return prepare_image(encoded, where, size).encoded
        except InputError:
            upright = prepare_image(encoded, where)  # Raises what is wrong with it.
        raise InputError(
            f"{where} is {upright.width}x{upright.height}, but the annotations of "
            f"{'/'.join(identity)} are of a picture of {size[0]}x{size[1]}: is it "
            "another picture, or was it resized?"
        )

    def _read(self, identity):
        """The bytes of a picture, and what to call it in an error."""
        entry = self._entries[identity]
        with self._lock:  # A zip is one file, read from one place at a time.
            encoded = entry.archive.read(entry.name)
        return encoded, f"{entry.archive.name}: {entry.name}"


def report(values, items, outcomes, ended_by):
    """Says what was done, in the log, as metadata and as `upload.json`.

    Args:
        values: the step's parameters.
        items: list of `uploader.Item`.
        outcomes: list of the `uploader.Outcome` of each, None of what is left to do.
        ended_by: what has ended it before, None if nothing has; it is raised again.

    Returns:
        The step's exit status.

    Raises:
        InputError: the Suite refuses to go on.
    """
    counts = Counter(outcome.result for outcome in outcomes if outcome)
    results = {
        name: counts[name] for name in ("created", "updated", "unchanged", "failed")
    }
    rows = [
        {
            "dataset": item.dataset,
            "key": item.key,
            "result": outcome.result,
            "reason": outcome.reason,
        }
        for item, outcome in zip(items, outcomes, strict=True)
        if outcome
    ]
    reviewed = sum(row["reason"] == uploader.REVIEWED for row in rows)
    numbers = {**results, "reviewed": reviewed, "not_done": len(items) - len(rows)}
    stopped = why_stopped(ended_by)
    facts = {
        "project": values["project"],
        "dry_run": values["dry_run"],
        **numbers,
        "stopped": stopped,
        "pictures": rows,
    }
    with staged_outputs() as folder:
        text = json.dumps(facts, ensure_ascii=False, indent=1)
        (folder / "upload.json").write_text(text + "\n", encoding="utf-8")
    failures = [row["reason"] for row in rows if row["result"] == "failed"]
    for reason in failures[:LOGGED_FAILURES]:
        logging.warning("failed: %s", reason)
    if len(failures) > LOGGED_FAILURES:
        left = len(failures) - LOGGED_FAILURES
        logging.warning("failed: %d more, see upload.json", left)
    if reviewed:
        logging.info(
            "reviewed: %d labels have other boxes, and were left as they are, as "
            "somebody has submitted or skipped them; --status=WORKING or --replace=all "
            "changes them too",
            reviewed,
        )
    logging.info(
        "%s'%s': %s",
        "what would be done in " if values["dry_run"] else "",
        values["project"],
        ", ".join(f"{number} {name}" for name, number in results.items()),
    )
    log_metadata(**numbers, **({"stopped": stopped} if stopped else {}))
    if not ended_by:
        return 2 if failures else 0
    cut_short = (
        f"stopped with {numbers['not_done']} of {len(items)} pictures left: {stopped} "
        "Run again, it goes on with what is left."
    )
    if isinstance(ended_by, sdk.RefusedError):
        raise InputError(cut_short) from ended_by
    logging.error("%s", cut_short)
    raise ended_by


def why_stopped(ended_by):
    """Says in one sentence what has ended the step, an empty text if nothing has."""
    if not ended_by:
        return ""
    if isinstance(ended_by, KeyboardInterrupt):
        return "it was interrupted."
    if isinstance(ended_by, InputError):
        return str(ended_by)
    return f"a defect of the program, {type(ended_by).__name__}."


if __name__ == "__main__":
    runtime.run_step(main)
