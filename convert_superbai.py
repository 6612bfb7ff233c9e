"""Converts an export of the Superb AI Suite to TFRecord files.

    python convert_superbai.py --images images.zip --labels labels.zip

Writes `classes.txt`, `train/*.tfrecord`, `test/*.tfrecord` and `preview.jpg`, a mosaic
of labelled pictures to check the boxes by eye.
"""

from collections import Counter

import valohai
from absl import logging

import step
import step_inputs
from yolov3_tf2.errors import InputError

PARAMETERS = {
    "test_fraction": {
        "default": 0.2,
        "min": 0.01,
        "max": 0.9,
        "description": "Share of the pictures taken for testing where none carries a "
        "tag 'train' or 'test' in the Suite.",
    },
}
INPUTS = {
    "images": {
        "default": [],
        "optional": False,
        "description": "Zip of the pictures, as downloaded from the Suite's project "
        "settings; several zips are read as one.",
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
    values = step.parameters(PARAMETERS, INPUTS)
    images = step_inputs.input_paths("images")
    labels = step_inputs.input_paths("labels")
    if len(labels) != 1:
        raise InputError(
            f"input 'labels': expected one zip, got {len(labels)}: "
            f"{', '.join(map(str, labels))}."
        )

    # TensorFlow takes seconds to import: what can be refused is refused before.
    step.import_tensorflow()
    from yolov3_tf2 import plots, splits, superbai

    with (
        superbai.Export(images, labels[0]) as export,
        step.staged_outputs() as folder,
    ):
        by_split, how_split = splits.split_items(export.items, values["test_fraction"])
        classes = folder / "classes.txt"
        classes.write_text("\n".join(export.class_names) + "\n", encoding="utf-8")
        every = max(1, len(export.items) // PREVIEW_PICTURES)
        shown, boxes = [], {}
        for split, items in by_split.items():
            boxes[split] = Counter()
            for number, record in enumerate(
                write_records(export, items, folder / split, split)
            ):
                names = [export.class_names[label] for label in record.labels]
                boxes[split].update(names)
                if number % every == 0 and len(shown) < PREVIEW_PICTURES:
                    shown.append(record)
        mosaic = plots.records_mosaic(shown, export.class_names)
        mosaic.save(folder / "preview.jpg", quality=90)
    report(export, by_split, how_split, boxes)


def write_records(export, items, folder, split):
    """Writes the records of `items` and yields each one after it is written."""
    import tensorflow as tf

    from yolov3_tf2 import records

    folder.mkdir()
    path = folder / f"{split}-00000-of-00001.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for item in step.progress(items, desc=split, unit=" pictures"):
            record = export.read(item)
            writer.write(records.serialize(record, export.class_names))
            yield record


def report(export, by_split, how_split, boxes):
    """Logs what was converted and what was left out, as text and as metadata."""
    train, test = boxes["train"], boxes["test"]
    width = max(map(len, [*export.class_names, "pictures"])) + 2
    rows = [
        ("", "train", "test"),
        ("pictures", len(by_split["train"]), len(by_split["test"])),
        ("boxes", train.total(), test.total()),
        *((f"  {name}", train[name], test[name]) for name in export.class_names),
    ]
    table = "\n".join(f"{name:<{width}}{a:>9}{b:>9}" for name, a, b in rows)
    logging.info("\n%s\n%s", table, how_split)
    for reason, number in export.left_out.items():
        logging.info("left out: %d %s", number, reason)
    if not train.total():
        logging.warning("no picture for training has a box: nothing can be learned")
    step.log_metadata(
        pictures_train=len(by_split["train"]),
        pictures_test=len(by_split["test"]),
        boxes_train=train.total(),
        boxes_test=test.total(),
        **{f"train/{name}": train[name] for name in export.class_names},
        **{f"test/{name}": test[name] for name in export.class_names},
        **{f"left out: {what}": number for what, number in export.left_out.items()},
    )


if __name__ == "__main__":
    step.run(main)
