"""Time and memory of each step as the data grows to 10 and 100 times the sample.

    python benchmarks/growth.py --times 1 10 100

Generates exports with the drawn images of the built-in sample, repeated under other
names, and runs the steps on them as a user does: convert, one epoch of training with
yolov3-tiny, detection on the test images. A step's memory is the largest of its
processes, TensorFlow included.
"""

import argparse
import json
import tempfile
import zipfile
from pathlib import Path

import common

from valohai_step.local import sample

SIZE = 160


def multiply(folder, times):
    """Repeats the images of an export under other names; returns their number."""
    (folder / "many").mkdir(exist_ok=True)
    for name in ("images", "labels"):
        with (
            zipfile.ZipFile(folder / f"{name}.zip") as source,
            zipfile.ZipFile(
                folder / "many" / f"{name}.zip", "w", zipfile.ZIP_DEFLATED
            ) as target,
        ):
            entries = {entry: source.read(entry) for entry in source.namelist()}
            for entry, content in entries.items():
                if entry == "project.json":
                    target.writestr(entry, content)
                    continue
                for time_ in range(times):
                    prefix, _, base = entry.rpartition("/")
                    copy = content
                    if prefix.startswith("meta"):
                        meta = json.loads(content)
                        meta["data_key"] = f"{time_}/{meta['data_key']}"
                        meta["label_path"] = [
                            path.replace("labels/", f"labels/{time_}-")
                            for path in meta["label_path"]
                        ]
                        copy = json.dumps(meta)
                    joint = "-" if prefix == "labels" else "/"
                    target.writestr(f"{prefix}/{time_}{joint}{base}", copy)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, nargs="+", default=[1, 10, 100])
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        sample.write_export(folder, sample.NUM_TRAIN, sample.NUM_TEST)
        from yolov3_tf2.data import records
        from yolov3_tf2.network import checkpoint
        from yolov3_tf2.network.model import build_model
        from yolov3_tf2.network.model_info import ModelInfo
        from yolov3_tf2.network.variants import VARIANTS

        model = build_model(VARIANTS["yolov3-tiny"], len(sample.SHAPES))
        info = ModelInfo(VARIANTS["yolov3-tiny"], list(sample.SHAPES), SIZE)
        checkpoint.save_model(folder / "model", model, info)
        for times in arguments.times:
            multiply(folder, times)
            outputs = folder / f"{times}"
            exports = folder / "many"
            model_files = (folder / "model").iterdir()
            cells = [
                common.run(
                    "convert_superbai.py",
                    outputs,
                    *("--images", exports / "images.zip"),
                    *("--labels", exports / "labels.zip"),
                )
            ]
            cells.append(
                common.run(
                    "train.py",
                    outputs,
                    *("--classes", outputs / "classes.txt"),
                    *("--train", *(outputs / "train").iterdir()),
                    *("--test", *(outputs / "test").iterdir()),
                    *("--model", *model_files, "--transfer=none", f"--size={SIZE}"),
                    *("--epochs=1", "--batch_size=16"),
                )
            )
            cells.append(
                common.run(
                    "detect.py",
                    outputs,
                    *("--model", *(outputs / "model").iterdir(), f"--size={SIZE}"),
                    *("--image", *(outputs / "test").iterdir()),
                )
            )
            number = sum(
                records.count_records(path) for path in outputs.glob("t*/*.tfrecord")
            )
            rows.append(
                (
                    f"{number:,}",
                    *(
                        f"{seconds:.0f} s, {peak / 1e6:.0f} MB"
                        for seconds, peak in cells
                    ),
                )
            )
            print(*rows[-1], sep=" | ", flush=True)
    common.print_table(
        "growth: the built-in sample and multiples of it",
        ["images", "convert", "train, one epoch", "detect, a ninth of them"],
        rows,
    )


if __name__ == "__main__":
    main()
