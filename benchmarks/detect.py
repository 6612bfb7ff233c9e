"""Speed of detection, compared with the network alone in OpenCV.

    python benchmarks/detect.py --model yolov3-tiny --num-images 200

Uses random weights, and generated photographs or your own `--images`. Times in turn the
network in OpenCV, the network of this project with suppression, and the whole of
detect.py from files to files, without its start. Needs `benchmarks/requirements.txt`;
if ONNX Runtime is missing, it is left out.
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import common
import numpy as np
from common import REPOSITORY

NUM_CLASSES = 80
PRECISIONS = ("float32", "bfloat16")
OPENCV = "network alone, OpenCV"


def network_alone(model, variant, images):
    """Returns a function that runs a network and suppresses boxes."""
    import tensorflow as tf

    from yolov3_tf2.inference import nms

    @tf.function(input_signature=[tf.TensorSpec((None, *images.shape[1:]))])
    def run(batch):
        return nms.suppress(
            model(batch, training=False),
            variant,
            score_threshold=0.5,
            iou_threshold=0.5,
            max_boxes=100,
        )

    batch = tf.constant(images)
    return lambda: [part.numpy() for part in run(batch)]


def opencv_alone(name, size, weights, images):
    """Returns a function that runs the network in OpenCV."""
    import cv2

    sys.path.insert(0, str(REPOSITORY / "tests" / "helpers"))
    import darknet_cfg

    cfg = weights.with_suffix(".cfg")
    cfg.write_text(darknet_cfg.CFGS[name](size, NUM_CLASSES))
    network = cv2.dnn.readNetFromDarknet(str(cfg), str(weights))
    layers = network.getUnconnectedOutLayersNames()
    blob = np.ascontiguousarray(images.transpose(0, 3, 1, 2))

    def run():
        network.setInput(blob)
        network.forward(layers)

    return run


def onnx_alone(model, images):
    """Returns a function that runs a folded network in ONNX Runtime."""
    import onnx_network

    session = onnx_network.build_session(model, images.shape[1])
    blob = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    return lambda: session.run(None, {"images": blob})


def run_step(folder, images, size, batch, precision):
    """Runs detect.py; returns the images per second that it logs."""
    command = [
        *(sys.executable, REPOSITORY / "detect.py"),
        *("--model", *(folder / "model").iterdir(), "--image", images),
        *(f"--size={size}", f"--batch_size={batch}", f"--precision={precision}"),
    ]
    output = subprocess.run(
        list(map(str, command)),
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "VH_OUTPUTS_DIR": str(folder / precision)},
    ).stdout
    return json.loads(output.strip().splitlines()[-1])["images_per_second"]


def write_images(folder, number):
    """Writes generated photographs into a new folder; returns it."""
    folder.mkdir()
    photographs = common.photographs()
    for index in range(number):
        encoded = photographs[index % len(photographs)]
        (folder / f"{index}.jpg").write_bytes(encoded)
    return folder


def build_networks(name, size, batch, folder):
    """Returns a dict from title to a function that runs a batch through a network.

    Args:
        name: name of the variant.
        size: width and height of the network's input, pixels.
        batch: number of images.
        folder: folder to write the model `model` and its weights to.
    """
    from yolov3_tf2.network import checkpoint, darknet, folding
    from yolov3_tf2.network import model as network
    from yolov3_tf2.network.model_info import ModelInfo
    from yolov3_tf2.network.variants import VARIANTS
    from yolov3_tf2.training import devices

    variant = VARIANTS[name]
    images = np.random.default_rng(0).random((batch, size, size, 3), "float32")
    model = network.build_model(variant, NUM_CLASSES)
    weights = folder / "random.weights"
    darknet.write_weights(weights, model)
    class_names = list(map(str, range(NUM_CLASSES)))
    info = ModelInfo(variant, class_names, size)
    checkpoint.save_model(folder / "model", model, info)

    functions = {OPENCV: opencv_alone(name, size, weights, images)}
    if importlib.util.find_spec("onnxruntime"):
        folded = folding.fold_model(model)
        functions["network alone, ONNX Runtime"] = onnx_alone(folded, images)
    for precision in PRECISIONS:
        devices.set_precision(precision)
        folded = folding.fold_model(model)
        functions[f"network and boxes, {precision}"] = network_alone(
            folded, variant, images
        )
    return functions


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="yolov3-tiny")
    parser.add_argument("--size", type=int, default=416)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--num-images", type=int, default=200)
    parser.add_argument(
        "--images", type=Path, help="your own images: a file, folder or zip"
    )
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    size, batch, own = arguments.size, arguments.batch, arguments.images

    speeds = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        functions = build_networks(arguments.model, size, batch, folder)
        images = own or write_images(folder / "images", arguments.num_images)
        for function in functions.values():
            function()  # Traces the graphs.
        for _ in range(arguments.rounds):
            for name, seconds in common.side_by_side(functions, 3).items():
                speeds[name].append(batch / seconds)
            for precision in PRECISIONS:
                speed = run_step(folder, images, size, batch, precision)
                speeds[f"files to files, {precision}"].append(speed)

    medians = {name: statistics.median(values) for name, values in speeds.items()}
    files = f"of {own}" if own else f"generated, {arguments.num_images}"
    common.print_table(
        f"detect: {arguments.model} at {size}, batches of {batch}, medians of "
        f"{arguments.rounds} rounds in turn; files {files}",
        ["", "images a second", "of OpenCV's network"],
        [
            (name, f"{speed:.1f}", f"{speed / medians[OPENCV]:.2f}")
            for name, speed in medians.items()
        ],
    )


if __name__ == "__main__":
    main()
