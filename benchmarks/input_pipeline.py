"""Measures the images per second of the input pipeline, compared to decoding alone.

    python benchmarks/input_pipeline.py --num-images 2000 --size 416 --batch 8
    python benchmarks/input_pipeline.py --images images.zip --labels labels.zip

Generates images of 640 by 480, or reads an export. It times in turn: reading and
decoding alone; training batches without augmentation; and those with the
default augmentation.
"""

import argparse
import tempfile
from pathlib import Path

import common
import numpy as np


def write_records(folder, number, files=4):
    """Writes `number` images to `files` TFRecord files; returns their paths."""
    import tensorflow as tf

    from superbai.labelled_image import Record
    from yolov3_tf2.data import records

    photographs, chance = common.photographs(), np.random.default_rng(1)
    paths = []
    for file in range(files):
        paths.append(folder / f"train-{file:05d}-of-{files:05d}.tfrecord")
        with tf.io.TFRecordWriter(str(paths[-1])) as writer:
            for index in range(file, number, files):
                record = Record(
                    f"data/{index}.jpg",
                    photographs[index % len(photographs)],
                    "jpeg",
                    common.WIDTH,
                    common.HEIGHT,
                    common.boxes(chance).tolist(),
                    [place % 2 for place in range(common.BOXES)],
                )
                writer.write(records.serialize_example(record, common.CLASSES))
    return paths


def convert_export(images, labels, folder):
    """Converts a whole export to training files; returns paths and class names."""
    from superbai import shards
    from superbai.export import Export

    with Export([images], labels) as export:
        planned = shards.plan_shards({"train": export.items}, folder, 4096)
        shards.write_shards(export, planned, set(), common.NoBar())
        return sorted((folder / "train").iterdir()), export.class_names


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-images", type=int, default=2000)
    common.add_export_arguments(parser)
    parser.add_argument("--size", type=int, default=416)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()

    import tensorflow as tf

    from yolov3_tf2.data import records
    from yolov3_tf2.data.augment import STRENGTHS
    from yolov3_tf2.data.dataset import build_training_dataset, iterate
    from yolov3_tf2.data.record_files import RecordFiles
    from yolov3_tf2.network.variants import VARIANTS

    def decode_alone(paths):
        dataset = tf.data.TFRecordDataset(list(map(str, paths))).map(
            lambda row: tf.io.decode_jpeg(records.parse_example(row)["encoded"], 3),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        options = tf.data.Options()
        options.autotune.enabled = False
        for _ in dataset.with_options(options):
            pass

    with tempfile.TemporaryDirectory() as folder:
        own = common.own_export(parser, arguments)
        if own:
            paths, names = convert_export(*own, Path(folder))
        else:
            paths = write_records(Path(folder), arguments.num_images)
            names = common.CLASSES
        number = RecordFiles(paths).total
        epoch = tf.Variable(1, dtype=tf.int64)

        def batches_of(strengths):
            dataset = build_training_dataset(
                RecordFiles(paths),
                names,
                VARIANTS["yolov3"],
                [arguments.size],
                arguments.batch,
                strengths,
                0,
                epoch,
                1,
            )

            def run():
                for _ in iterate(dataset):
                    pass

            return run

        functions = {
            "read and decode alone": lambda: decode_alone(paths),
            "batches without augmentation": batches_of(dict.fromkeys(STRENGTHS, 0.0)),
            "batches with the default augmentation": batches_of(STRENGTHS),
        }
        for function in functions.values():
            function()  # The first call traces and compiles it.
        seconds = common.side_by_side(functions, arguments.rounds)
    limit = seconds["read and decode alone"]
    common.print_table(
        f"input pipeline: {number:,} images"
        f"{'' if own else f' of {common.WIDTH} by {common.HEIGHT}'} to "
        f"{arguments.size}, batches of {arguments.batch}, medians of "
        f"{arguments.rounds} rounds in turn",
        ["", "images a second", "of the limit"],
        [
            (name, f"{number / value:,.0f}", f"{limit / value:.2f}")
            for name, value in seconds.items()
        ],
    )


if __name__ == "__main__":
    main()
