"""Detects objects in images, draws them, and writes them as COCO JSON.

    python detect.py --model model/* --image photo.jpg more.zip

Writes `output_<name>` for each image, `detections.json`, and `review.csv`: the images
in the order in which labelling them should help training most. Images that cannot
be read are named in the log and skipped. The exit status is 2 if there are more of them
than `max_unreadable`, and 1 if no image can be read. Files that were not meant to be
images are only named.
"""

import valohai_step.startup  # noqa: F401

from collections import Counter

import valohai
from absl import logging

from valohai_step import runtime
from valohai_step.inputs import input_folder, input_paths, read_class_names
from valohai_step.outputs import log_metadata, progress_bar, staged_outputs
from valohai_step.parameters import read_parameters, without_command_line
from yolov3_tf2.errors import InputError, list_first
from yolov3_tf2.files.archive_entries import describe_nested

PARAMETERS = {
    "size": {
        "default": 0,
        "category": "Detection",
        "min": 0,
        "max": 4096,
        "description": "Width and height of the network's input in pixels, a multiple "
        "of 32. 0: the size that the model was trained at.",
    },
    "score_threshold": {
        "default": -1.0,
        "category": "Detection",
        "min": -1.0,
        "max": 1.0,
        "description": "Minimum score: boxes with a lower score are dropped. -1: the "
        "score of the best F1 that training has found, 0.25 for models without one.",
    },
    "iou_threshold": {
        "default": 0.5,
        "category": "Detection",
        "min": 0.0,
        "max": 1.0,
        "description": "Maximum overlap (IoU) of two boxes of the same class: if they "
        "overlap more, the one with the lower score is dropped.",
    },
    "across_classes": {
        "default": False,
        "category": "Detection",
        "description": "Whether overlapping boxes of different classes count as one "
        "object, too: only the class with the highest score is kept.",
    },
    "max_boxes": {
        "default": 0,
        "category": "Detection",
        "min": 0,
        "max": 100_000,
        "description": "Maximum number of boxes per image. The boxes with the highest "
        "scores are kept. 0: as many as in the evaluation of the model, at least 100.",
    },
    "batch_size": {
        "default": 8,
        "category": "Run",
        "min": 1,
        "max": 1024,
        "description": "Number of images that the network processes at the same time.",
    },
    "precision": {
        "default": "auto",
        "category": "Run",
        "choices": ["auto", "float16", "bfloat16", "float32"],
        "description": "Number format of the computation. auto: float16 on GPUs with "
        "tensor cores, bfloat16 on CPUs that support it, float32 otherwise.",
    },
    "max_unreadable": {
        "default": 0,
        "category": "Run",
        "min": 0,
        "max": 1_000_000_000,
        "description": "Number of unreadable images to accept. They are skipped. If "
        "there are more, the step fails with exit status 2 after all other images are "
        "done.",
    },
}
INPUTS = {
    "classes": {
        "default": [],
        "optional": True,
        "description": "File with one class name per line, to check that the model has "
        "these classes.",
    },
    "model": {
        "default": [],
        "optional": False,
        "description": "Files of the folder model/ written by the train or weights "
        "step.",
    },
    "image": {
        "default": [],
        "optional": False,
        "description": "Images, zips, tars or folders of images, or TFRecord files "
        "written by convert-superbai.",
    },
}
with without_command_line():
    valohai.prepare(
        step="detect",
        image="python:3.11-slim",
        default_parameters=PARAMETERS,
        default_inputs=INPUTS,
    )

NUM_TO_REVIEW = 3  # Images that the log names.


def main():
    values = read_parameters(PARAMETERS, INPUTS)
    if -1 < values["score_threshold"] < 0:
        raise InputError(
            "--score_threshold: expected -1 or a number from 0 to 1, got "
            f"{values['score_threshold']:g}."
        )
    model_folder = input_folder("model", "model.json")
    image_paths = input_paths("image", folders=True)
    classes = input_paths("classes", optional=True)

    # TensorFlow takes seconds to import: what can be refused is refused before.
    runtime.import_tensorflow()
    from yolov3_tf2.evaluation.detections_file import DetectionsFile
    from yolov3_tf2.inference import review, stream
    from yolov3_tf2.inference.sources import count_images, walk_images

    model, info = load_model(model_folder, classes, values)
    values = choose_defaults(values, info)
    detector = build_detector(model, info, values)
    total, others = count_images(image_paths)
    if not total:
        nested = describe_nested(others)
        raise InputError(
            f"no images in {', '.join(map(str, image_paths))}"
            + (f", but {nested}." if nested else "; expected at least one.")
        )
    if others:
        logging.info(
            "left out %d files that are not images: %s",
            *(len(others), list_first(others, ", ")),
        )

    unreadable, changes, stopwatch = [], Counter(), stream.Stopwatch()
    with staged_outputs() as folder:
        bar = progress_bar(walk_images(image_paths), total=total, unit=" images")
        batches = stream.detect_images(
            bar,
            detector,
            batch_size=values["batch_size"],
            unreadable=unreadable,
            stopwatch=stopwatch,
            gray_range=info.gray_range,
        )
        with DetectionsFile(
            folder / "detections.json", info.class_names, unreadable
        ) as file:
            rows = write_detections(batches, file, folder, info, values, changes)
        if not file.num_images:
            raise InputError(
                f"none of {total} images could be read; see the warnings above."
            )
        rows = review.rank_rows(rows)
        review.write_csv(folder / "review.csv", rows)

    report(file, rows, values)
    report_changes(changes, info.gray_range)
    log_metadata(
        images=file.num_images,
        images_left_out=len(unreadable),
        other_files=len(others),
        objects=file.num_objects,
        images_with_max_boxes=file.num_full,
        score_threshold=values["score_threshold"],
        images_per_second=file.num_images / (bar.format_dict["elapsed"] or 1),
        network_images_per_second=file.num_images / stopwatch.total,
    )
    if unreadable:
        logging.warning(
            "skipped %d of %d images that could not be read (max_unreadable is %d)",
            len(unreadable),
            total,
            values["max_unreadable"],
        )
    return 2 if len(unreadable) > values["max_unreadable"] else 0


def load_model(model_folder, classes, values):
    """Loads the model.

    Args:
        model_folder: folder of the model.
        classes: list with the path of the class file, or empty.
        values: the step's parameters.

    Returns:
        The `keras.Model`, folded, and its `model_info.ModelInfo`.
    """
    from yolov3_tf2.network import checkpoint
    from yolov3_tf2.training import devices

    precision = devices.choose_precision(values["precision"])
    devices.set_precision(precision)
    model, info = checkpoint.load_model(model_folder, folded=True)
    check_class_names(classes, info.class_names, model_folder)
    logging.info(
        "%s: %d classes, computing in %s",
        info.variant.name,
        len(info.class_names),
        precision,
    )
    return model, info


def choose_defaults(values, info):
    """Returns the parameters with the values of the model where none are given."""
    from yolov3_tf2.evaluation import coco

    chosen = dict(values)
    chosen["size"] = values["size"] or info.size
    if chosen["size"] != info.size:
        logging.warning(
            "the model was trained at size %d: at size %d it may find fewer objects",
            info.size,
            chosen["size"],
        )
    reason = ""
    if values["score_threshold"] < 0:
        chosen["score_threshold"] = info.shown_threshold
        reason = " (the best F1 in training)"
        if info.score_threshold is None:
            reason = " (the default: the model has no threshold of its own)"
    chosen["max_boxes"] = values["max_boxes"] or info.max_boxes or coco.COCO_MAX_BOXES
    logging.info(
        "size %d, score threshold %.3f%s, at most %d boxes per image",
        *(chosen["size"], chosen["score_threshold"], reason, chosen["max_boxes"]),
    )
    return chosen


def build_detector(model, info, values):
    """Returns a `Detector` that also finds the boxes of low score for the review."""
    from yolov3_tf2.inference import review
    from yolov3_tf2.inference.detector import Detector

    return Detector(
        model,
        info.variant,
        values["size"],
        score_threshold=min(values["score_threshold"], review.MIN_SCORE),
        iou_threshold=values["iou_threshold"],
        max_boxes=values["max_boxes"],
        across_classes=values["across_classes"],
    )


def check_class_names(paths, class_names, model_folder):
    """Raises an `InputError` if a class file has other names than the model."""
    if not paths:
        return
    names = read_class_names(paths[0])
    if names != class_names:
        raise InputError(
            f"{paths[0]} names {len(names)} classes ({', '.join(names[:5])}...), but "
            f"{model_folder / 'model.json'} names {len(class_names)} "
            f"({', '.join(class_names[:5])}...); was the model trained on another data "
            "set? Leave out the input 'classes' to use the names of the model."
        )


def write_detections(batches, file, folder, info, values, changes):
    """Writes the detections of all images, and draws them.

    Args:
        batches: the result of `stream.detect_images`.
        file: a `detections_file.DetectionsFile`.
        folder: folder for the drawn images.
        info: the model's `model_info.ModelInfo`.
        values: the step's parameters.
        changes: Counter of what differs from the files of the images, to be added to.

    Returns:
        A list with a `review.Row` for each image.
    """
    from yolov3_tf2.evaluation import draw
    from yolov3_tf2.inference import review, stream

    rarities = review.class_rarity(info.class_names, info.train_boxes)
    output_name = draw.output_names()
    rows = []
    with stream.BoundedPool(values["batch_size"]) as pool:
        for batch, candidates in batches:
            shown = [each.above(values["score_threshold"]) for each in candidates]
            names = [loaded.source.name for loaded in batch]
            num_shown = [len(detections.scores) for detections in shown]
            rows += review.rate_images(
                list(zip(names, candidates, num_shown, strict=True)),
                info.class_names,
                rarities,
            )
            for loaded, detections in zip(batch, shown, strict=True):
                source, rgb, _, image_changes = loaded
                changes.update(image_changes)
                output = output_name(source.name, rgb.size)
                file.add(
                    {
                        "file_name": source.name,
                        "source": source.where,
                        "width": rgb.width,
                        "height": rgb.height,
                        "output": output,
                    },
                    detections,
                )
                drawn = draw.draw_boxes(
                    rgb,
                    detections.boxes_px,
                    detections.labels,
                    info.class_names,
                    detections.scores,
                )
                pool.submit(
                    draw.save_image, drawn, folder / output, pixels=loaded.num_pixels
                )
            del batch  # Frees its images before the next batch is waited for.
    return rows


def report(file, rows, values):
    """Logs how much was found, and which images to label first."""
    score_threshold = values["score_threshold"]
    logging.info("found %d objects in %d images", file.num_objects, file.num_images)
    if not file.num_objects:
        logging.warning(
            "no object has a score above %.3g: lower --score_threshold, or train for "
            "more epochs",
            score_threshold,
        )
    if file.num_full:
        logging.warning(
            "%d of %d images reach the limit of %d boxes per image: others may be "
            "missing; raise --max_boxes",
            file.num_full,
            file.num_images,
            values["max_boxes"],
        )
    first = [f"{row.file_name} ({row.reason})" for row in rows[:NUM_TO_REVIEW]]
    logging.info("label these first (see review.csv): %s", "; ".join(first))


def report_changes(changes, gray_range):
    """Logs how many images the network saw otherwise than their files have them.

    Args:
        changes: Counter of `images.DecodedImage.changes`.
        gray_range: that of the model; None if it has none.
    """
    from yolov3_tf2.files.images import SIXTEEN_BITS

    for reason, number in changes.items():
        logging.info("changed: %d %s", number, reason)
    if not changes[SIXTEEN_BITS]:
        return
    if gray_range:
        logging.info("16-bit values from %d to %d became 0 to 255", *gray_range)
    else:
        logging.warning(
            "the model was not trained on 16-bit images, so it has no range for their "
            "values: each one was scaled by its own darkest and brightest pixels"
        )


if __name__ == "__main__":
    runtime.run_step(main)
