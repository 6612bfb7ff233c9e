"""Sends boxes to a project of Superb AI, as labels for people to correct.

    python upload_superbai.py --project "My project" --annotations detections.json

The boxes come from detect.py, or from any COCO JSON or Pascal VOC XML files. With
`--upload_images=true --images ...`, images that the project does not have are uploaded
first. The environment variables SPB_ACCESS_KEY and SPB_TEAM_NAME, or the file of `spb
configure`, hold the credentials of the Suite; SUPERB_AI_API_KEY and SUPERB_AI_TENANT
those of Superb AI's new platform.
Running the step again continues an interrupted run; what is up to date is not sent
again. `upload.json` lists the result of each image, also after an interruption. If an
image fails, the exit status is 2.
"""

import valohai_step.startup  # noqa: F401

import contextlib
import io
import json
import re
from queue import SimpleQueue

import valohai
from absl import logging

from superbai.platform import platform_credentials, platform_upload
from superbai.platform.platform_api import PlatformApi
from superbai.platform.platform_assets import AssetIndex
from superbai.platform.platform_project import PlatformProject
from superbai.upload import upload_plan, upload_report, upload_run, uploader
from superbai.upload.failures import RefusedError
from superbai.upload.image_files import ImageFiles
from superbai.upload.project import Project
from valohai_step import runtime
from valohai_step.inputs import input_paths
from valohai_step.outputs import (
    check_outputs,
    log_metadata,
    progress_bar,
    staged_outputs,
)
from valohai_step.parameters import read_parameters, without_command_line
from yolov3_tf2.errors import InputError
from yolov3_tf2.files import annotations

PARAMETERS = {
    "project": {
        "default": "",
        "category": "Project",
        "description": "Name of the image project. It needs a bounding-box class for "
        "every class in the annotations.",
    },
    "product": {
        "default": "auto",
        "category": "Project",
        "choices": ["auto", "suite", "platform"],
        "description": "Where the project is: in the Suite, or on Superb AI's new "
        "platform, which gets boxes only for images that it has. With auto, the "
        "environment variables of the credentials tell.",
    },
    "dataset": {
        "default": "",
        "optional": True,
        "category": "Project",
        "description": "Dataset of the images in the Suite. If empty, the first folder "
        "of each image's name, as in detections.json for TFRecord files.",
    },
    "score_threshold": {
        "default": 0.0,
        "category": "Boxes",
        "min": 0.0,
        "max": 1.0,
        "description": "Boxes with a lower score are not sent. Boxes without a score "
        "are always sent.",
    },
    "upload_images": {
        "default": False,
        "category": "Images",
        "description": "Upload the images that the project does not have.",
    },
    "tag": {
        "default": "",
        "optional": True,
        "category": "Images",
        "description": "Tag added to every image, for example train or test.",
    },
    "status": {
        "default": "keep",
        "category": "Boxes",
        "choices": ["keep", "WORKING", "SUBMITTED", "SKIPPED"],
        "description": "New status of labels whose boxes change or that nobody has "
        "submitted or skipped. With keep, no status changes, and submitted and skipped "
        "labels keep their boxes unless replace is all.",
    },
    "replace": {
        "default": "ours",
        "category": "Boxes",
        "choices": ["ours", "all", "none"],
        "description": "Existing objects to remove. ours: boxes of earlier uploads "
        "that nobody has edited; all: every object, including those that people drew; "
        "none: labels that have objects are not changed.",
    },
    "review_images": {
        "default": 0,
        "category": "Images",
        "min": 0,
        "max": 1000000,
        "description": "Number of images from the top of review.csv to tag with "
        "review.",
    },
    "dry_run": {
        "default": False,
        "category": "Run",
        "description": "Report what would be done without changing anything.",
    },
}
INPUTS = {
    "annotations": {
        "default": [],
        "optional": False,
        "description": "Boxes to send: detections.json from the detect step, COCO "
        "JSON, Pascal VOC XML, or zip files or folders of these.",
    },
    "images": {
        "default": [],
        "optional": True,
        "description": "Images to upload: files, zip files or folders.",
    },
    "review": {
        "default": [],
        "optional": True,
        "description": "review.csv from the detect step, for review_images.",
    },
}
with without_command_line():
    valohai.prepare(
        step="upload-superbai",
        image="python:3.11-slim",
        default_parameters=PARAMETERS,
        default_inputs=INPUTS,
    )


def main():
    values = read_parameters(PARAMETERS, INPUTS)
    if not values["project"]:
        raise InputError("--project: expected the name of a project.")
    product = platform_credentials.choose_product(values["product"])
    if product == "platform":
        platform_upload.check_parameters(values)
    check_texts(values)
    annotation_paths = input_paths("annotations", folders=True)
    review_paths = input_paths("review", optional=True)
    image_paths = input_paths("images", optional=True, folders=True)
    check_inputs(values, review_paths, image_paths)
    # Before anything is sent, as upload.json says what was.
    check_outputs()

    bad_names = {}
    annotated_images, skip_counts = annotations.read_annotations(
        annotation_paths, bad_names=bad_names
    )
    review_names = set()
    if values["review_images"]:
        review_names = upload_plan.read_review(review_paths[0], values["review_images"])
        if not review_names:
            logging.warning("%s: no images, so none gets a tag", review_paths[0])
    what = (annotated_images, bad_names, review_names, skip_counts)
    if product == "platform":
        return send_to_platform(values, *what)
    return send_to_suite(values, *what, image_paths)


def check_texts(values):
    """Raises an `InputError` if a parameter is no text that can be sent."""
    for name in ("project", "dataset", "tag"):
        if re.search("[\ud800-\udfff]", values[name]):
            raise InputError(
                f"--{name}: expected text in UTF-8, got {ascii(values[name])}; is the "
                "terminal or the script in another encoding?"
            )


def check_inputs(values, review_paths, image_paths):
    """Raises an `InputError` if a parameter needs an input that is not given."""
    if values["review_images"] and not review_paths:
        raise InputError(
            "--review_images: expected review.csv of the detect step, got no file; add "
            "--review FILE."
        )
    if values["upload_images"] and not image_paths:
        raise InputError(
            "--upload_images: expected the image files, got none; add --images FILE."
        )


def send_to_suite(
    values, annotated_images, bad_names, review_names, skip_counts, image_paths
):
    """Brings the labels of a Suite project in line; returns the exit status."""
    identities, problems = upload_plan.identify_all(annotated_images, values["dataset"])
    can_be_sent = [identity for identity in identities if identity not in problems]
    with ImageFiles(image_paths, can_be_sent) as image_files:
        items = upload_plan.make_items(
            annotated_images,
            identities,
            problems=problems,
            find_size=image_files.find_size,
            score_threshold=values["score_threshold"],
            tag=values["tag"],
            review_names=review_names,
            skip_counts=skip_counts,
        )
        items += upload_plan.unnamed_items(bad_names)
        log_skipped(skip_counts)
        # The SDK prints to stdout, which is for this step's metadata.
        without_stdout = contextlib.redirect_stdout(io.StringIO())
        with without_stdout:
            project = Project(values["project"])
        logging.info("credentials: %s", project.credentials.source)
        boxes = [box for item in items for box in item.boxes.values()]
        project.classes.check_boxes(class_name for class_name, _ in boxes)
        logging.info(
            "project '%s': %d images, %d boxes",
            values["project"],
            len(items),
            len(boxes),
        )

        upload = uploader.Uploader(
            project,
            image_files.read_upright,
            upload_images=values["upload_images"],
            status=values["status"],
            replace=values["replace"],
            dry_run=values["dry_run"],
        )
        # Signals wait until the report is written, whatever ends the upload.
        signals = SimpleQueue()
        with runtime.signals_held(signals):
            with without_stdout, progress_bar(total=len(items), unit=" images") as bar:
                outcomes, ended_by = upload_run.upload_all(upload, items, signals, bar)
            for reason, count in image_files.changes.items():
                logging.info("changed before the upload: %d %s", count, reason)
            report = upload_report.make_report(
                values,
                items,
                outcomes,
                describe_end(ended_by),
                project.redact.keep_names,
            )
            write_report(report)
            return exit_status(report, ended_by)


def send_to_platform(values, annotated_images, bad_names, review_names, skip_counts):
    """Sends the boxes to the new platform; returns the exit status."""
    api = PlatformApi(platform_credentials.read_credentials())
    api.redact.install()
    project = PlatformProject(api, values["project"])
    assets = AssetIndex(project.read_assets())
    items = upload_plan.make_items(
        annotated_images,
        [("", image.name) for image in annotated_images],
        problems={},
        find_size=assets.find_size,
        score_threshold=values["score_threshold"],
        tag=values["tag"],
        review_names=review_names,
        skip_counts=skip_counts,
    )
    items += upload_plan.unnamed_items(bad_names)
    log_skipped(skip_counts)
    boxes = [box for item in items for box in item.boxes.values()]
    project.classes.check_boxes(class_name for class_name, _ in boxes)
    logging.info(
        "project '%s' of Superb AI's new platform: %d images, %d boxes",
        *(values["project"], len(items), len(boxes)),
    )
    sender = platform_upload.Sender(
        project, items, replace=values["replace"], dry_run=values["dry_run"]
    )
    signals = SimpleQueue()
    api.should_stop = sender.stopped.is_set
    with runtime.signals_held(signals):
        with progress_bar(total=len(items), unit=" images") as bar:
            ended_by = sender.send_all(assets, signals, bar)
        report = upload_report.make_report(
            values,
            items,
            sender.outcomes,
            describe_end(ended_by),
            api.redact.keep_names,
        )
        if sender.num_kept:
            logging.info("%d boxes of people or other models stay", sender.num_kept)
        if sender.num_left_out:
            reason = "boxes of a class in the same pixel as several others"
            logging.warning("left out: %d %s", sender.num_left_out, reason)
        write_report(report, "reopen them on the platform")
        return exit_status(report, ended_by)


def log_skipped(skip_counts):
    """Logs what of the annotations is not sent as it is."""
    for reason, count in skip_counts.items():
        logging.info("skipped or corrected: %d %s", count, reason)


def write_report(report, *reopening):
    """Writes `upload.json`, and logs it; see `upload_report.log_report`."""
    with staged_outputs() as folder:
        text = json.dumps(report, ensure_ascii=False, indent=1)
        # Half of a character becomes an escape of JSON.
        data = (text + "\n").encode("utf-8", "backslashreplace")
        (folder / "upload.json").write_bytes(data)
    upload_report.log_report(report, *reopening)
    log_metadata(**upload_report.metadata(report))


def exit_status(report, ended_by):
    """Returns the step's exit status; raises what has ended the upload early.

    Raises:
        InputError: the Suite refuses the credentials or fails every time.
    """
    if not ended_by:
        return 2 if report["failed"] else 0
    num_images = report["not_done"] + len(report["pictures"])
    message = (
        f"stopped with {report['not_done']} of {num_images} images left: "
        f"{report['stopped']} Run the same command again to continue."
    )
    if isinstance(ended_by, RefusedError):
        raise InputError(message) from ended_by
    logging.error("%s", message)
    raise ended_by


def describe_end(ended_by):
    """Returns one sentence on what has ended the upload; empty if nothing has."""
    if not ended_by:
        return ""
    if isinstance(ended_by, KeyboardInterrupt):
        return "it was interrupted."
    if isinstance(ended_by, InputError):
        return str(ended_by)
    return f"a bug in this program, {type(ended_by).__name__}."


if __name__ == "__main__":
    runtime.run_step(main)
