"""Converts an export of the Superb AI Suite to TFRecord files.

    python convert_superbai.py --images images.zip --labels labels.zip

Writes `classes.txt`, `train/*.tfrecord`, `test/*.tfrecord` and `preview.jpg`, a mosaic
of labelled pictures to check the boxes by eye.
"""

from collections import Counter

import valohai
from absl import logging

from superbai import splits
from superbai.export import Export
from valohai_step import execution, runtime
from valohai_step.inputs import input_paths
from valohai_step.outputs import log_metadata, progress_bar, staged_outputs
from valohai_step.parameters import read_parameters
from yolov3_tf2.errors import InputError

PARAMETERS = {
    "test_fraction": {
        "default": 0.2,
        "category": "Output",
        "min": 0.01,
        "max": 0.9,
        "description": "Share of the pictures taken for testing where none carries a "
        "tag 'train' or 'test' in the Suite.",
    },
    "images_per_shard": {
        "default": 4096,
        "category": "Output",
        "min": 1,
        "max": 1_000_000,
        "description": "Most pictures in one TFRecord file.",
    },
    "polygons": {
        "default": "skip",
        "category": "Labels",
        "choices": ["skip", "box"],
        "description": "What to do with polygons and rotated boxes: skip them, or draw "
        "a box around each.",
    },
    "include_unsubmitted": {
        "default": False,
        "category": "Labels",
        "description": "Take pictures too whose labels are not submitted yet, where "
        "they have an object; never those that were skipped.",
    },
    "skip_missing": {
        "default": False,
        "category": "Labels",
        "description": "Leave labelled pictures out that are not among the images, in "
        "place of refusing the export.",
    },
    "valohai_dataset": {
        "default": "",
        "optional": True,
        "category": "Output",
        "description": "Dataset of Valohai that the outputs become a version of; "
        "empty: of none.",
    },
}
INPUTS = {
    "images": {
        "default": [],
        "optional": False,
        "description": "Zip of the pictures, as downloaded from the Suite's project "
        "settings; several zips are read as one, and so are pictures.",
    },
    "labels": {
        "default": [],
        "optional": False,
        "description": "Zip of the label export, from the Suite's export history.",
    },
}
valohai.prepare(
    step="convert-superbai",
    image="python:3.11-slim",
    default_parameters=PARAMETERS,
    default_inputs=INPUTS,
)

PREVIEW_PICTURES = 16


def main():
    values = read_parameters(PARAMETERS, INPUTS)
    execution.check_name("valohai_dataset", values["valohai_dataset"])
    images = input_paths("images", folders=True)
    labels = labels_path(input_paths("labels", folders=True))
    convert(images, labels, values)
    execution.add_to_dataset(values["valohai_dataset"])


def convert(images, labels, values):
    """Converts an export into the outputs.

    Args:
        images: list of `pathlib.Path`.
        labels: a `pathlib.Path`.
        values: the step's parameters.

    Raises:
        InputError: something of it cannot be used.
    """
    export = Export(
        images,
        labels,
        polygons_as_boxes=values["polygons"] == "box",
        include_unsubmitted=values["include_unsubmitted"],
        skip_missing=values["skip_missing"],
    )
    with export:
        by_split, how_split = splits.split_items(
            export.items, values["test_fraction"], export.name
        )
        # It takes seconds to import: what can be refused is refused before.
        runtime.import_tensorflow()
        with staged_outputs() as folder:
            counts = write(export, by_split, folder, values["images_per_shard"])
    report(export, counts, how_split)


def labels_path(paths):
    """Returns the zip or folder of the labels, given as such or as all of its files.

    Raises:
        InputError: there are several.
    """
    projects = [path for path in paths if path.name == "project.json"]
    if projects:
        return min(projects, key=lambda path: len(path.parts)).parent
    if len(paths) != 1:
        raise InputError(
            f"input 'labels': expected one zip, got {len(paths)}: "
            f"{', '.join(map(str, paths))}."
        )
    return paths[0]


def write(export, by_split, folder, images_per_shard):
    """Writes all outputs into a folder.

    Args:
        export: an open `export.Export`.
        by_split: a dict of its items, `train` and `test`.
        folder: where to write, a `pathlib.Path`.
        images_per_shard: the most pictures of a file.

    Returns:
        For each split a Counter of its boxes by ("box", label), and of `pictures`.
    """
    from superbai import shards
    from yolov3_tf2.evaluation import mosaics

    names = export.class_names
    (folder / "classes.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    every = -(-len(export.items) // PREVIEW_PICTURES)
    shown = {item.source_id for items in by_split.values() for item in items[::every]}
    planned = shards.plan_shards(by_split, folder, images_per_shard)
    with progress_bar(total=len(export.items), unit=" pictures") as bar:
        written = shards.write_shards(export, planned, shown, bar)
    shards.check_splits(written, planned, export.name)
    records = [record for result in written for record in result.shown]
    mosaic = mosaics.records_mosaic(records[:PREVIEW_PICTURES], names)
    mosaic.save(folder / "preview.jpg", quality=90)
    counts = {split: Counter() for split in by_split}
    for result in written:
        counts[result.split] += result.counts
    return counts


def report(export, counts, how_split):
    """Logs what was converted and what was not as given, as text and as metadata."""
    names = export.class_names
    rows = {"pictures": [], "boxes": [], **{f"  {name}": [] for name in names}}
    for split in ("train", "test"):
        numbers = [counts[split]["box", i] for i in range(len(names))]
        columns = (counts[split]["pictures"], sum(numbers), *numbers)
        for row, number in zip(rows.values(), columns, strict=True):
            row.append(number)
    width = max(map(len, rows)) + 2
    table = "\n".join(f"{name:<{width}}{a:>9}{b:>9}" for name, (a, b) in rows.items())
    logging.info("\n%s%9s%9s\n%s\n%s", " " * width, "train", "test", table, how_split)
    notes = {
        "left out": export.left_out,
        "changed": export.changed,
        "assumed": export.assumed,
    }
    for kind, reasons in notes.items():
        for reason, number in reasons.items():
            logging.info("%s: %d %s", kind, number, reason)
    boxes = rows["boxes"]
    if not boxes[0]:
        logging.warning("no picture for training has a box: nothing can be learned")
    if export.far_outside > 0.01 * sum(boxes):
        logging.warning(
            "%d of %d boxes reach far over the edge of their picture: are these the "
            "pictures that were labelled, of the same size and turned alike?",
            export.far_outside,
            sum(boxes),
        )
    log_metadata(
        pictures_train=rows["pictures"][0],
        pictures_test=rows["pictures"][1],
        boxes_train=boxes[0],
        boxes_test=boxes[1],
        **{
            f"{split}/{name}": rows[f"  {name}"][column]
            for column, split in enumerate(("train", "test"))
            for name in names
        },
        **{
            f"{kind}: {reason}": number
            for kind, reasons in notes.items()
            for reason, number in reasons.items()
        },
    )


if __name__ == "__main__":
    runtime.run_step(main)
