"""Trains yolov3-tiny on a Suite export and prints the accuracy of every epoch.

    python benchmarks/train_quality.py --images images.zip --labels labels.zip \\
        --weights yolov3-tiny.weights --epochs 30 --seeds 5

Runs the steps of this project with their defaults, or with the recipe of the example
that it replaces: a pretrained and frozen backbone, random weights elsewhere, no
augmentation, Adam, darknet's box loss, the model of the last epoch. Options after `--`
are passed to train.py, as in `-- --box_loss=darknet --mosaic=0`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from common import REPOSITORY

RECIPES = {
    "default": [],
    "reference": [
        "--transfer=darknet",
        "--kept_rate=0",
        "--learning_rate=0.001",
        "--weight_decay=0",
        "--ema=0",
        "--box_loss=darknet",
        "--flip=0",
        "--scale=0",
        "--aspect=0",
        "--translate=0",
        "--hue=0",
        "--saturation=0",
        "--exposure=0",
        "--mosaic=0",
    ],
}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", required=True, help="zip of the images")
    parser.add_argument("--labels", required=True, help="zip of the label export")
    parser.add_argument("--weights", required=True, help="yolov3-tiny.weights")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=1, help="runs, with seeds 0, 1, …")
    parser.add_argument("--recipe", choices=RECIPES, default="default")
    parser.add_argument("options", nargs="*", help="options of train.py, after --")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        run(
            folder,
            "convert_superbai.py",
            *("--images", Path(arguments.images).resolve()),
            *("--labels", Path(arguments.labels).resolve()),
        )
        run(
            folder,
            "weights.py",
            *("--model=yolov3-tiny", "--weights", Path(arguments.weights).resolve()),
        )
        runs = []
        for seed in range(arguments.seeds):
            lines = run(
                folder / f"seed-{seed}",
                "train.py",
                *("--classes", folder / "classes.txt"),
                *("--train", *(folder / "train").iterdir()),
                *("--test", *(folder / "test").iterdir()),
                *("--model", *(folder / "model").iterdir()),
                *(f"--epochs={arguments.epochs}", f"--seed={seed}"),
                *RECIPES[arguments.recipe],
                *arguments.options,
            )
            epochs = [line for line in lines if "epoch" in line]
            runs.append(epochs)
            print(f"\n{arguments.recipe}, seed {seed}\nepoch      AP    AP50")
            for line in epochs:
                print(f"{line['epoch']:5d}  {line['AP']:.4f}  {line['AP50']:.4f}")
            sys.stdout.flush()
    print(
        f"\n{arguments.recipe}, {arguments.epochs} epochs, mean of "
        f"{arguments.seeds} (range)"
    )
    print("            AP                        AP50")
    chosen = {
        "untrained": [epochs[0] for epochs in runs],
        "best by AP": [max(epochs, key=accuracy) for epochs in runs],
        "last epoch": [epochs[-1] for epochs in runs],
    }
    for name, lines in chosen.items():
        cells = [describe([line[key] for line in lines]) for key in ("AP", "AP50")]
        print(f"{name:11s}", *cells)


def accuracy(line):
    return line["AP"]


def run(outputs, script, *arguments):
    """Runs a step and returns its metadata, a list of dicts."""
    process = subprocess.run(
        [sys.executable, str(REPOSITORY / script), *map(str, arguments)],
        env={**os.environ, "VH_OUTPUTS_DIR": str(outputs)},
        stdout=subprocess.PIPE,
        text=True,
    )
    if process.returncode:
        sys.exit(process.returncode)
    lines = process.stdout.splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def describe(values):
    """Returns mean and range as text."""
    mean = statistics.mean(values)
    return f"{mean:.4f} ({min(values):.4f} to {max(values):.4f})"


if __name__ == "__main__":
    main()
