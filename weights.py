"""Turns official darknet weights into a TensorFlow checkpoint and proves it.

    python weights.py --model yolov3-tiny --weights yolov3-tiny.weights --image dog.jpg

Without a file it downloads the official weights of the network. Writes `model/`: the
checkpoint `model.tf.*` and `model.json`.
"""

import numpy as np
import valohai
from absl import logging

from valohai_step import downloads, runtime
from valohai_step.inputs import DOWNLOADS, input_paths, read_class_names
from valohai_step.local_outputs import REPOSITORY
from valohai_step.outputs import log_metadata, staged_outputs
from valohai_step.parameters import read_parameters
from yolov3_tf2.errors import InputError

PARAMETERS = {
    "model": {
        "default": "yolov3",
        "category": "Network",
        "choices": ["yolov3", "yolov3-spp", "yolov3-tiny"],
        "description": "The network that the weights belong to.",
    },
    "weights_num_classes": {
        "default": 80,
        "category": "Network",
        "min": 1,
        "max": 10000,
        "description": "Number of classes that the weights were trained on: 80 for the "
        "official ones.",
    },
}
INPUTS = {
    "weights": {
        "default": [],
        "optional": True,
        "description": "Darknet weights file of the network; without it the official "
        "one is downloaded.",
    },
    "classes": {
        "default": [],
        "optional": True,
        "description": "Class names of the weights, one a line; without it they are "
        "COCO's where there are 80.",
    },
    "image": {
        "default": [],
        "optional": True,
        "description": "Picture to try the converted network on.",
    },
}
valohai.prepare(
    step="weights",
    image="python:3.11-slim",
    default_parameters=PARAMETERS,
    default_inputs=INPUTS,
)

# Of darknet's author. Not as the input's default: that would be of one network alone.
OFFICIAL = "https://pjreddie.com/media/files/{model}.weights"
# The input that the official networks were trained for, pixels.
SIZE = 416


def main():
    values = read_parameters(PARAMETERS, INPUTS)
    path = weights_path(values["model"])
    classes = input_paths("classes", optional=True)
    class_names = choose_class_names(classes, values["weights_num_classes"])
    image = input_paths("image", optional=True)

    # TensorFlow takes seconds to import: what can be refused is refused before.
    runtime.import_tensorflow()
    from yolov3_tf2.network import checkpoint, darknet
    from yolov3_tf2.network.model import build_model
    from yolov3_tf2.network.variants import VARIANTS

    variant = VARIANTS[values["model"]]
    model = build_model(variant, len(class_names), random=False)
    number = darknet.load_weights(path, model, variant, len(class_names))
    logging.info("%s: %s weights of %s read", path, f"{number:,}", variant.name)
    if image:
        try_on_picture(model, variant, class_names, image[0])
    else:
        try_on_noise(model)
    with staged_outputs() as folder:
        checkpoint.save_model(folder / "model", model, class_names, SIZE)
    log_metadata(model=variant.name, classes=len(class_names), weights=number)


def weights_path(model):
    """The weights file that was given, or else the official one of a network."""
    for path in input_paths("weights", optional=True):
        return path
    url = OFFICIAL.format(model=model)
    return downloads.download(url, DOWNLOADS, "--weights FILE")


def choose_class_names(paths, number):
    """Returns the names of `number` classes: those of a file, COCO's, or numbers."""
    if paths:
        names = read_class_names(paths[0])
        if len(names) != number:
            raise InputError(
                f"{paths[0]}: expected {number} class names, as --weights_num_classes "
                f"says, got {len(names)}."
            )
        return names
    if number == 80:
        coco = REPOSITORY / "yolov3_tf2" / "network" / "coco.names"
        return read_class_names(coco)
    return [f"class {index}" for index in range(number)]


def try_on_picture(model, variant, class_names, path):
    """Logs what the converted network sees in a picture."""
    from yolov3_tf2.files.images import load_rgb
    from yolov3_tf2.inference.detector import Detector

    detector = Detector(
        model, variant, SIZE, score_threshold=0.25, iou_threshold=0.45, max_boxes=20
    )
    array = np.asarray(load_rgb(path.read_bytes(), path))
    (found,) = detector([detector.prepare(array)])
    logging.info("%s: %d objects of a score over 0.25", path, len(found.scores))
    for box, score, label in zip(*found, strict=True):
        corners = ", ".join(f"{value:.0f}" for value in box)
        logging.info("  %s %.2f at %s", class_names[label], score, corners)
    if not len(found.scores):
        logging.warning(
            "nothing found: is there none of its classes in the picture, or are these "
            "the weights of another network of the same size?"
        )


def try_on_noise(model):
    """Raises an `InputError` unless the outputs for a fixed picture are finite."""
    picture = np.random.default_rng(0).random((1, SIZE, SIZE, 3), "float32")
    outputs = [np.asarray(logits) for logits in model(picture, training=False)]
    for logits in outputs:
        if not np.isfinite(logits).all():
            raise InputError(
                f"the converted {model.name} gives outputs that are not finite; the "
                "weights file is damaged, or of another network of the same size."
            )
    logging.info(
        "tried on a picture of noise: outputs finite, from %.1f to %.1f",
        min(logits.min() for logits in outputs),
        max(logits.max() for logits in outputs),
    )


if __name__ == "__main__":
    runtime.run_step(main)
