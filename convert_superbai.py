"""Converts exports of Superb AI, and COCO, YOLO and VOC data sets, to TFRecord files.

    python convert_superbai.py --images images.zip --labels labels.zip
    python convert_superbai.py --labels dataset.zip

The content tells the format of the labels. A data set may have its images among them.

Writes `classes.txt`; `train/*.tfrecord`, `validation/*.tfrecord` (possibly without
records) and `test/*.tfrecord`; `data.json`, the numbers of boxes and their sizes; and
`preview.jpg`, a mosaic of labelled images to check the boxes by eye.
"""

import valohai_step.startup  # noqa: F401

import json
from collections import Counter

import valohai
from absl import logging

from superbai import formats, groups, splits, summary
from superbai.labelled_image import GrayRangeUnknown
from valohai_step import execution, runtime
from valohai_step.inputs import input_paths
from valohai_step.outputs import log_metadata, progress_bar, staged_outputs
from valohai_step.parameters import read_parameters, without_command_line

PARAMETERS = {
    "test_fraction": {
        "default": 0.2,
        "category": "Output",
        "min": 0.01,
        "max": 0.9,
        "description": "Fraction of the images used for testing, if no image has the "
        "tag 'train', 'validation' or 'test' in the Suite, and no other data set has "
        "splits.",
    },
    "group_by": {
        "default": "",
        "optional": True,
        "category": "Output",
        "description": "Keeps images together in one split, if no image has such a "
        "tag. folder: those of a folder; dataset: those of a dataset; a regular "
        "expression such as (.*)_: those for which its first group matches the same "
        "part of dataset/data_key. Classes are balanced over the splits; image does "
        "only that. Empty: by a hash of each name.",
    },
    "images_per_shard": {
        "default": 4096,
        "category": "Output",
        "min": 1,
        "max": 1_000_000,
        "description": "Maximum number of images in one TFRecord file.",
    },
    "polygons": {
        "default": "skip",
        "category": "Labels",
        "choices": ["skip", "box"],
        "description": "What to do with polygons and rotated boxes: skip them, or draw "
        "a bounding box around each.",
    },
    "include_unsubmitted": {
        "default": False,
        "category": "Labels",
        "description": "For labels of Superb AI: also use images whose labels are not "
        "submitted yet, if they have at least one object. Skipped images are never "
        "used.",
    },
    "skip_missing": {
        "default": False,
        "category": "Labels",
        "description": "Leave out labelled images whose files are missing, instead of "
        "stopping with an error.",
    },
    "find_images_by": {
        "default": "path",
        "category": "Labels",
        "choices": ["path", "key", "file_name"],
        "description": "For labels of Superb AI: how the image of a label is found. "
        "path: by its dataset and its key; a folder or zip named like a dataset holds "
        "its images only. key: by the key alone, whatever folders and zips are called. "
        "file_name: like path, and then by the file name alone, where only one label "
        "and one file have it.",
    },
    "max_unreadable": {
        "default": 0,
        "category": "Labels",
        "min": 0,
        "max": 1_000_000_000,
        "description": "Number of unreadable images and labels to accept. They are "
        "named in the log and left out. If there are more, the step fails.",
    },
    "valohai_dataset": {
        "default": "",
        "optional": True,
        "category": "Output",
        "description": "Name of a Valohai dataset: the outputs become a new version of "
        "it. Leave empty for none.",
    },
}
INPUTS = {
    "images": {
        "default": [],
        "optional": True,
        "description": "Zip of the images, downloaded from the project settings of the "
        "Suite. Several zips or tars, or image files, are also possible. Not needed "
        "where the labels hold the images.",
    },
    "labels": {
        "default": [],
        "optional": False,
        "description": "Zip of the labels, downloaded from the export history of the "
        "Suite; or the folder of superb download or spb download, or a zip of it. Or a "
        "data set with COCO, YOLO or Pascal VOC labels: zips, tars, folders or files, "
        "with or without its images.",
    },
}
with without_command_line():
    valohai.prepare(
        step="convert-superbai",
        image="python:3.11-slim",
        default_parameters=PARAMETERS,
        default_inputs=INPUTS,
    )

PREVIEW_IMAGES = 16
TRAIN_SIZE = 416  # The default of train's parameter `size`.


def main():
    values = read_parameters(PARAMETERS, INPUTS)
    execution.check_name("valohai_dataset", values["valohai_dataset"])
    groups.check_pattern(values["group_by"])
    images = input_paths("images", optional=True, folders=True)
    labels = input_paths("labels", folders=True)
    convert(images, labels, values)
    execution.add_to_dataset(values["valohai_dataset"])


def convert(images, labels, values):
    """Converts an export into the outputs.

    Args:
        images: list of `pathlib.Path`.
        labels: list of `pathlib.Path`.
        values: the parameters of the step.

    Raises:
        InputError: the export cannot be used.
    """
    export = formats.open_export(
        images,
        labels,
        polygons_as_boxes=values["polygons"] == "box",
        include_unsubmitted=values["include_unsubmitted"],
        skip_missing=values["skip_missing"],
        find_images_by=values["find_images_by"],
    )
    with export:
        by_split, method = splits.split_items(
            export.items,
            values["test_fraction"],
            export.name,
            values["group_by"],
            export.count_boxes,
            export.split_source,
        )
        # TensorFlow takes seconds to import: check everything else first.
        runtime.import_tensorflow()
        with staged_outputs() as folder:
            counts, problems = write_outputs(export, by_split, folder, values)
    log_summary(counts, export, method, problems)


def write_outputs(export, by_split, folder, values):
    """Writes all outputs into a folder.

    Returns:
        A dict from each split with images to a Counter of `images`, and of boxes by
        ("box", label); and a list of `data_report.find_problems`.

    Raises:
        InputError: too many images or labels cannot be read, or all of a split.
    """
    from superbai import shards
    from yolov3_tf2.data import data_report
    from yolov3_tf2.data.contents import join_contents
    from yolov3_tf2.evaluation import draw, previews

    classes = "\n".join(export.class_names) + "\n"
    (folder / "classes.txt").write_text(classes, encoding="utf-8")

    every = -(-len(export.items) // PREVIEW_IMAGES)
    shown = {item.source_id for items in by_split.values() for item in items[::every]}
    planned = shards.plan_shards(by_split, folder, values["images_per_shard"])
    written = write_records(export, planned, shown)
    shards.check_unreadable(export, values["max_unreadable"])
    shards.check_splits(written, planned, export.name)

    records = [record for shard in written for record in shard.shown]
    mosaic = previews.records_mosaic(records[:PREVIEW_IMAGES], export.class_names)
    draw.save_image(mosaic, folder / "preview.jpg", quality=90)

    contents = {
        split: join_contents(w.contents for w in written if w.split == split)
        for split in by_split
    }
    described = data_report.describe_contents(contents, export.class_names)
    text = json.dumps(described, ensure_ascii=False, indent=1)
    (folder / "data.json").write_text(text + "\n", encoding="utf-8")
    problems = data_report.find_problems(
        {split: each for split, each in contents.items() if by_split[split]},
        export.class_names,
        TRAIN_SIZE,
        size_name=f"size {TRAIN_SIZE}, the default of train",
    )

    counts = {split: Counter() for split in by_split if by_split[split]}
    for shard in written:
        if shard.split in counts:
            counts[shard.split] += shard.counts
    return counts, problems


def write_records(export, planned, shown):
    """Writes the TFRecord files; see `shards.write_shards`."""
    from superbai import gray_range, shards

    def write():
        with progress_bar(total=len(export.items), unit=" images") as bar:
            return shards.write_shards(export, planned, shown, bar)

    try:
        return write()
    except GrayRangeUnknown:
        logging.info("looking for the values that the 16-bit images use")
        gray_range.measure_gray_range(export)
        return write()


def log_summary(counts, export, method, problems):
    """Logs what was converted and what was not, as text and as metadata.

    Args:
        counts, problems: the results of `write_outputs`.
        export: the `Export`.
        method: how it was split, a sentence.
    """
    class_names, notes = export.class_names, export.notes
    logging.info("\n%s\n%s", summary.format_table(counts, class_names), method)
    for kind, reason, number in summary.list_notes(notes):
        examples = summary.format_examples(notes.examples.get(reason, ()), number)
        what = summary.format_number(number, reason)
        logging.info("%s: %s%s", kind, what, examples)
    if export.gray_range:
        logging.info("16-bit values from %d to %d became 0 to 255", *export.gray_range)
    for problem in problems:
        logging.warning("%s", problem)
    total = sum(map(summary.num_boxes, counts.values()))
    if notes.far_outside > 0.01 * total:
        logging.warning(
            "%d of %d boxes reach far over the edge of their image: are these the "
            "images that were labelled, with the same size and orientation?",
            notes.far_outside,
            total,
        )
    log_metadata(
        **summary.metadata(counts, class_names, notes),
        **dict(
            zip(("gray_black", "gray_white"), export.gray_range or (), strict=False)
        ),
    )


if __name__ == "__main__":
    runtime.run_step(main)
