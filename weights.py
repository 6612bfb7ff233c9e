"""Converts darknet weights to a TensorFlow checkpoint and tests the network.

    python weights.py --model yolov3-tiny --weights yolov3-tiny.weights --image dog.jpg

Without a weights file it downloads the official one. Writes the folder `model/` with
the checkpoint `model.tf.*` and `model.json`.
"""

import numpy as np
import valohai
from absl import logging

from valohai_step import downloads, runtime
from valohai_step.inputs import DOWNLOADS, input_paths, read_class_names
from valohai_step.local_outputs import REPOSITORY
from valohai_step.outputs import log_metadata, staged_outputs
from valohai_step.parameters import read_parameters, without_command_line
from yolov3_tf2.errors import InputError

PARAMETERS = {
    "model": {
        "default": "yolov3",
        "category": "Network",
        "choices": ["yolov3", "yolov3-spp", "yolov3-tiny"],
        "description": "Network to train; its official weights are downloaded "
        "unless you give a file.",
    },
    "weights_num_classes": {
        "default": 80,
        "category": "Network",
        "min": 1,
        "max": 10000,
        "description": "Number of classes of the weights; the official weights have "
        "80.",
    },
}
INPUTS = {
    "weights": {
        "default": [],
        "optional": True,
        "description": "Darknet weights file. If empty, the official weights are "
        "downloaded.",
    },
    "classes": {
        "default": [],
        "optional": True,
        "description": "Text file with the class names of the weights, one per line. "
        "If empty, 80 classes get the names of COCO, any other count gets numbers.",
    },
    "image": {
        "default": [],
        "optional": True,
        "description": "Image to test the converted network on.",
    },
}
with without_command_line():
    valohai.prepare(
        step="weights",
        image="python:3.11-slim",
        default_parameters=PARAMETERS,
        default_inputs=INPUTS,
    )

# From the author of darknet. As it depends on the network, it cannot be the default of
# the input.
OFFICIAL_URL = "https://pjreddie.com/media/files/{model}.weights"
# The input size that the official networks were trained for, pixels.
SIZE = 416


def main():
    values = read_parameters(PARAMETERS, INPUTS)
    weights_path = find_weights(values["model"])
    class_names = choose_class_names(values["weights_num_classes"])
    image_paths = input_paths("image", optional=True)

    # Importing TensorFlow takes seconds, so the inputs are checked first.
    runtime.import_tensorflow()
    from yolov3_tf2.network import checkpoint, darknet
    from yolov3_tf2.network.model import build_model
    from yolov3_tf2.network.model_info import ModelInfo
    from yolov3_tf2.network.variants import VARIANTS

    variant = VARIANTS[values["model"]]
    model = build_model(variant, len(class_names), random=False)
    num_weights = darknet.load_weights(weights_path, model, variant, len(class_names))
    logging.info(
        "%s: loaded %s weights of %s",
        weights_path.name,
        f"{num_weights:,}",
        variant.name,
    )

    if image_paths:
        test_on_image(model, variant, class_names, image_paths[0])
    else:
        test_on_noise(model)

    with staged_outputs() as folder:
        info = ModelInfo(variant, class_names, SIZE)
        checkpoint.save_model(folder / "model", model, info)
    log_metadata(model=variant.name, classes=len(class_names), weights=num_weights)


def find_weights(model):
    """Returns the path of the weights input, or downloads the official weights."""
    for path in input_paths("weights", optional=True):
        return path
    url = OFFICIAL_URL.format(model=model)
    return downloads.download(url, DOWNLOADS, "--weights FILE")


def choose_class_names(num_classes):
    """Returns the names of the classes input, or those of COCO, or numbers."""
    paths = input_paths("classes", optional=True)
    if paths:
        names = read_class_names(paths[0])
        if len(names) != num_classes:
            raise InputError(
                f"{paths[0]}: expected {num_classes} class names, got {len(names)}; "
                "does --weights_num_classes match the weights?"
            )
        return names
    if num_classes == 80:
        return read_class_names(REPOSITORY / "yolov3_tf2" / "network" / "coco.names")
    return [f"class {index}" for index in range(num_classes)]


def test_on_image(model, variant, class_names, path):
    """Logs what the converted network detects in an image."""
    from yolov3_tf2.files.images import decode_image
    from yolov3_tf2.inference.detector import Detector

    detector = Detector(
        model, variant, SIZE, score_threshold=0.25, iou_threshold=0.45, max_boxes=20
    )
    # Published weights have no range for 16-bit images: each has its own.
    pixels = np.asarray(decode_image(path.read_bytes(), path, gray_range=None).rgb)
    (detections,) = detector([detector.prepare(pixels)])
    logging.info("%s: %d objects with a score over 0.25", path, len(detections.scores))
    for box, score, label in zip(*detections, strict=True):
        corners = ", ".join(f"{value:.0f}" for value in box)
        logging.info("  %s %.2f at %s", class_names[label], score, corners)
    if not len(detections.scores):
        logging.warning(
            "no objects found: does the image show any of the classes, and do the "
            "weights belong to %s?",
            variant.name,
        )


def test_on_noise(model):
    """Raises an `InputError` unless the outputs for an image of noise are finite."""
    images = np.random.default_rng(0).random((1, SIZE, SIZE, 3), "float32")
    outputs = [np.asarray(logits) for logits in model(images, training=False)]
    for logits in outputs:
        if not np.isfinite(logits).all():
            raise InputError(
                f"expected finite outputs of the converted {model.name}, got some that "
                "are not finite; is the weights file damaged, or does it belong to "
                "another network of the same size?"
            )
    logging.info(
        "test on random noise: finite outputs, from %.1f to %.1f",
        min(logits.min() for logits in outputs),
        max(logits.max() for logits in outputs),
    )


if __name__ == "__main__":
    runtime.run_step(main)
