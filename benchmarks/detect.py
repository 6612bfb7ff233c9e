"""How fast pictures are looked through, beside the network alone in OpenCV.

    python benchmarks/detect.py --model yolov3-tiny --pictures 200

Random weights, and generated photographs or `--images` of one's own. Times in turn
OpenCV's network, this project's with its suppression of overlapping boxes, and the
whole of detect.py from files to files, without its start. Needs `requirements/dev.txt`
for OpenCV; where `benchmarks/requirements.txt` is installed, ONNX Runtime's network is
timed too.
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

REPOSITORY = Path(__file__).resolve().parent.parent


def network_alone(model, variant, images):
    """Returns a function that runs a network, and keeps its best boxes."""
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

    sys.path.insert(0, str(REPOSITORY / "tests"))
    import darknet_cfg

    cfg = weights.with_suffix(".cfg")
    cfg.write_text(darknet_cfg.CFGS[name](size, 80))
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


def whole_step(folder, pictures, size, batch, precision):
    """Runs detect.py; returns the pictures a second that it logs."""
    command = [
        *(sys.executable, REPOSITORY / "detect.py"),
        *("--model", *(folder / "model").iterdir(), "--image", pictures),
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


def write_pictures(folder, number):
    """Writes generated photographs into a folder; returns it."""
    folder.mkdir()
    photographs = common.photographs()
    for place in range(number):
        encoded = photographs[place % len(photographs)]
        (folder / f"{place}.jpg").write_bytes(encoded)
    return folder


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="yolov3-tiny")
    parser.add_argument("--size", type=int, default=416)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument(
        "--images", type=Path, help="pictures, a folder or a zip, of one's own"
    )
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    size, batch = arguments.size, arguments.batch

    from yolov3_tf2.network import checkpoint, darknet, folding
    from yolov3_tf2.network import model as network
    from yolov3_tf2.network.variants import VARIANTS
    from yolov3_tf2.training import devices

    variant = VARIANTS[arguments.model]
    images = np.random.default_rng(0).random((batch, size, size, 3), "float32")
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        model = network.build_model(variant, 80)
        darknet.write_weights(folder / "random.weights", model)
        checkpoint.save_model(folder / "model", model, list(map(str, range(80))), size)
        own = arguments.images
        pictures = own or write_pictures(folder / "pictures", arguments.pictures)

        weights = folder / "random.weights"
        functions = {
            "network alone, OpenCV": opencv_alone(
                arguments.model, size, weights, images
            )
        }
        if importlib.util.find_spec("onnxruntime"):
            folded = folding.fold_model(model)
            functions["network alone, ONNX Runtime"] = onnx_alone(folded, images)
        precisions = ("float32", "bfloat16")
        for precision in precisions:
            devices.set_precision(precision)
            folded, _ = checkpoint.load_model(folder / "model", folded=True)
            functions[f"network and boxes, {precision}"] = network_alone(
                folded, variant, images
            )
        for function in functions.values():
            function()  # Traced.
        speeds = defaultdict(list)
        for _ in range(arguments.rounds):
            for name, seconds in common.side_by_side(functions, 3).items():
                speeds[name].append(batch / seconds)
            for precision in precisions:
                speed = whole_step(folder, pictures, size, batch, precision)
                speeds[f"files to files, {precision}"].append(speed)
    opencv = statistics.median(speeds["network alone, OpenCV"])
    common.print_table(
        f"detect: {arguments.model} at {size}, batches of {batch}, medians of "
        f"{arguments.rounds} rounds in turn; files "
        f"{'of ' + str(own) if own else f'generated, {arguments.pictures}'}",
        ["", "images a second", "of OpenCV's network"],
        [
            (name, f"{speed:.1f}", f"{speed / opencv:.2f}")
            for name, speed in zip(
                speeds, map(statistics.median, speeds.values()), strict=True
            )
        ],
    )


if __name__ == "__main__":
    main()
