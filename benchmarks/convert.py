"""Speed of the conversion to TFRecord, compared with only unzipping and writing bytes.

    python benchmarks/convert.py --num-images 1000 --rounds 5
    python benchmarks/convert.py --images images.zip --labels labels.zip

Generates an export, or uses your own, and times in turn the limit, the conversion in
one process, and in several. The import of TensorFlow is not timed. Then runs
convert_superbai.py on generated exports of one and ten times the size, and prints the
peaks of its memory.
"""

import argparse
import json
import tempfile
import zipfile
from pathlib import Path

import common
import numpy as np


def write_export(folder, number):
    """Writes `images.zip` and `labels.zip` with `number` images; returns both."""
    photographs, chance = common.photographs(), np.random.default_rng(1)
    classes = [
        {"id": name, "name": name, "annotation_type": "box"} for name in common.CLASSES
    ]
    project = {
        "type": "image-siesta",
        "version": "0.6.5",
        "object_detection": {"object_classes": classes},
    }

    def items():
        for index in range(number):
            yield f"data/{index % 10}/{index}.jpg.jpg", photographs[index % 50]

    def labels():
        yield "project.json", json.dumps(project)
        for index in range(number):
            key = f"{index % 10}/{index}.jpg"
            meta = {
                "data_key": key,
                "dataset": "data",
                "image_info": {"width": common.WIDTH, "height": common.HEIGHT},
                "label_path": [f"labels/{index}.json"],
                "tags": [{"name": "test"}] if index % 5 == 0 else [],
                "status": "SUBMITTED",
            }
            objects = [
                {
                    "id": f"{index}-{place}",
                    "class_id": common.CLASSES[place % 2],
                    "class_name": common.CLASSES[place % 2],
                    "annotation_type": "box",
                    "annotation": {
                        "coord": dict(
                            zip(
                                ("x", "y", "width", "height"),
                                (x, y, right - x, bottom - y),
                                strict=True,
                            )
                        )
                    },
                    "properties": [],
                }
                for place, (x, y, right, bottom) in enumerate(
                    common.boxes(chance).tolist()
                )
            ]
            yield f"meta/data/{key}.json", json.dumps(meta)
            yield f"labels/{index}.json", json.dumps({"objects": objects})

    folder.mkdir(exist_ok=True)
    common.write_zip(folder / "images.zip", items())
    common.write_zip(folder / "labels.zip", labels())
    return folder / "images.zip", folder / "labels.zip"


def limit(images, folder):
    """Unzips every image and writes its bytes to one TFRecord file."""
    import tensorflow as tf

    path = str(folder / "limit.tfrecord")
    with zipfile.ZipFile(images) as archive, tf.io.TFRecordWriter(path) as writer:
        for name in archive.namelist():
            writer.write(archive.read(name))


def convert(images, labels, folder, processes, images_per_shard):
    """Does what convert_superbai.py does, but for the preview.

    Returns:
        The number of images.
    """
    from superbai import shards, splits
    from superbai.export import Export

    with Export([images], labels) as export:
        by_split, _ = splits.split_items(export.items, 0.2, export.name)
        planned = shards.plan_shards(by_split, folder, images_per_shard)
        shards.write_shards(export, planned, set(), common.NoBar(), processes)
        return len(export.items)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-images", type=int, default=1000)
    common.add_export_arguments(parser)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--skip-memory", action="store_true")
    arguments = parser.parse_args()
    own, number = common.own_export(parser, arguments), arguments.num_images
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        images, labels = own or write_export(folder / "one", number)
        if own:
            number = convert(images, labels, folder, 1, 4096)
        several = arguments.processes

        def convert_by(processes):
            return lambda: convert(images, labels, folder, processes, number // 4)

        seconds = common.side_by_side(
            {
                "limit": lambda: limit(images, folder),
                "one": convert_by(1),
                "several": convert_by(several),
            },
            arguments.rounds,
        )
        common.print_table(
            f"convert: {number:,} images, {images.stat().st_size / 1e6:.0f} MB, "
            f"medians of {arguments.rounds} rounds in turn",
            ["", "images a second", "of the limit"],
            [
                (
                    label,
                    f"{number / seconds[key]:,.0f}",
                    f"{seconds['limit'] / seconds[key]:.2f}",
                )
                for label, key in (
                    ("unzip and write the bytes, one process", "limit"),
                    ("convert, one process", "one"),
                    (f"convert, {several} processes", "several"),
                )
            ],
        )
        if arguments.skip_memory or own:
            return
        rows = []
        for count in (number, 10 * number):
            images, labels = write_export(folder / "memory", count)
            _, peak = common.run(
                "convert_superbai.py",
                folder / "outputs",
                *("--images", images, "--labels", labels),
            )
            rows.append((f"{count:,}", f"{peak / 1e6:.0f}"))
        common.print_table(
            "convert: peak memory of the largest process, TensorFlow included",
            ["images", "MB"],
            rows,
        )


if __name__ == "__main__":
    main()
