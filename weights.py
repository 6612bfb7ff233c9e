"""Converts darknet weights to a TensorFlow checkpoint and tests the network.

    python weights.py --model yolov3-tiny --weights yolov3-tiny.weights --image dog.jpg

Without a weights file it downloads the official one. For weights of your own, give
darknet's `.cfg` too: anchors, classes and size are read from it. Writes the folder
`model/` with the checkpoint `model.tf.*` and `model.json`.

A backbone file, such as `darknet53.conv.74`, becomes a model that can be trained with
`train.py --transfer=darknet` and detects nothing before that.
"""

import valohai_step.startup  # noqa: F401

import numpy as np
import valohai
from absl import logging

from valohai_step import downloads, runtime
from valohai_step.inputs import DOWNLOADS, input_paths, read_class_names
from valohai_step.local_outputs import REPOSITORY
from valohai_step.outputs import log_metadata, staged_outputs
from valohai_step.parameters import read_parameters, without_command_line
from yolov3_tf2.errors import InputError
from yolov3_tf2.network.official_weights import OFFICIAL, find_official

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
        "80. With a cfg it is read from there.",
    },
}
INPUTS = {
    "weights": {
        "default": [],
        "optional": True,
        "description": "Darknet weights file, or a backbone file such as "
        "darknet53.conv.74. If empty, the official weights are downloaded.",
    },
    "cfg": {
        "default": [],
        "optional": True,
        "description": "Darknet cfg that the weights were trained with: its anchors, "
        "masks, classes and size are used. Not needed for the official weights.",
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


def main():
    values = read_parameters(PARAMETERS, INPUTS)
    cfg_path, cfg = find_cfg()
    num_classes = choose_num_classes(values["weights_num_classes"], cfg_path, cfg)
    weights_path = find_weights(values["model"])
    class_names = choose_class_names(num_classes)
    image_paths = input_paths("image", optional=True)

    # Importing TensorFlow takes seconds, so the inputs are checked first.
    runtime.import_tensorflow()
    from yolov3_tf2.network import checkpoint, darknet, darknet_layers
    from yolov3_tf2.network.model import PARTS, build_model
    from yolov3_tf2.network.model_info import ModelInfo
    from yolov3_tf2.network.variants import VARIANTS

    variant, size = VARIANTS[values["model"]], VARIANTS[values["model"]].size
    if cfg:
        size = max(cfg.width, cfg.height)
        variant = darknet_layers.match_cfg(cfg_path, cfg, variant)
        logging.info(
            "%s: %d classes, size %d, anchors %s",
            *(cfg_path.name, cfg.num_classes, size, describe_anchors(variant)),
        )
    model = build_model(variant, num_classes, random=False)
    num_backbone = darknet.count_backbone_convolutions(weights_path, model)
    if num_backbone:
        model = build_model(variant, 0)
        num_weights = darknet.load_backbone(weights_path, model, num_backbone)
        info = ModelInfo(variant, [], size, parts=("backbone",))
        report_backbone(weights_path, num_backbone, image_paths)
    else:
        num_weights = darknet.load_weights(weights_path, model, variant, num_classes)
        variant = choose_anchors(variant, weights_path, cfg_path, size)
        info = ModelInfo(variant, class_names, size)
    logging.info(
        "%s: loaded %s weights of %s at size %d",
        weights_path.name,
        f"{num_weights:,}",
        variant.name,
        size,
    )

    if image_paths and info.parts == PARTS:
        test_on_image(model, info, image_paths[0])
    else:
        test_on_noise(model, size)

    with staged_outputs() as folder:
        checkpoint.save_model(folder / "model", model, info)
    log_metadata(model=variant.name, classes=len(info.class_names), weights=num_weights)


def find_cfg():
    """Returns the path of the cfg input and its content; None, None without one."""
    from yolov3_tf2.network import darknet_cfg

    for path in input_paths("cfg", optional=True):
        cfg = darknet_cfg.read_cfg(path)
        if cfg.width != cfg.height:
            size = max(cfg.width, cfg.height)
            logging.warning(
                "%s: width=%d height=%d is not square: size %d is used, and images "
                "are fitted into it, not stretched",
                *(path, cfg.width, cfg.height, size),
            )
        return path, cfg
    return None, None


def choose_num_classes(num_classes, cfg_path, cfg):
    """Returns the number of classes of the weights, from the cfg if there is one."""
    if not cfg:
        return num_classes
    default = PARAMETERS["weights_num_classes"]["default"]
    if num_classes not in (cfg.num_classes, default):
        raise InputError(
            f"{cfg_path}: expected {num_classes} classes, as --weights_num_classes "
            f"says, got {cfg.num_classes}; leave the parameter out to use the cfg's."
        )
    return cfg.num_classes


def find_weights(model):
    """Returns the path of the weights input, or downloads the official weights."""
    for path in input_paths("weights", optional=True):
        return path
    # As they depend on the network, they cannot be the default of the input.
    official = OFFICIAL[model]
    return downloads.download(
        official.urls[0],
        DOWNLOADS,
        "--weights FILE",
        mirrors=official.urls[1:],
        num_bytes=official.num_bytes,
        checksums=official.checksums,
    )


def choose_anchors(variant, weights_path, cfg_path, size):
    """Returns the variant with the anchors that the weights were trained with.

    Those of the official weights are known, whatever the cfg says.
    """
    from yolov3_tf2.network.variants import VARIANTS

    published = VARIANTS[variant.name]
    if find_official(weights_path) == variant.name:
        if variant != published:
            logging.info(
                "%s is the official file, so the anchors that it was trained with are "
                "used, %s, not those of %s, %s",
                *(weights_path.name, describe_anchors(published)),
                *(cfg_path.name, describe_anchors(variant)),
            )
        return published
    if not cfg_path:
        logging.warning(
            "%s is not the official file of %s: assuming the published anchors, %s, "
            "and size %d; if it was trained with others, its boxes are wrong: give its "
            ".cfg with --cfg",
            *(weights_path.name, variant.name, describe_anchors(variant), size),
        )
    return variant


def describe_anchors(variant):
    """Returns the anchors as text, coarse scale first."""
    return " / ".join(
        " ".join(f"{width:g}x{height:g}" for width, height in scale)
        for scale in variant.anchors
    )


def report_backbone(path, num_convolutions, image_paths):
    """Logs what a backbone file is good for."""
    logging.info(
        "%s is a backbone file with %d convolutions: train it with --transfer=darknet; "
        "it cannot detect objects before that",
        *(path.name, num_convolutions),
    )
    if image_paths:
        logging.warning("%s: not tested, as a backbone detects nothing", image_paths[0])


def choose_class_names(num_classes):
    """Returns the names of the classes input, or those of COCO, or numbers."""
    paths = input_paths("classes", optional=True)
    if paths:
        names = read_class_names(paths[0])
        if len(names) != num_classes:
            raise InputError(
                f"{paths[0]}: expected {num_classes} class names, got {len(names)}; "
                "does --weights_num_classes, or the cfg, match the weights?"
            )
        return names
    if num_classes == 80:
        return read_class_names(REPOSITORY / "yolov3_tf2" / "network" / "coco.names")
    return [f"class {index}" for index in range(num_classes)]


def test_on_image(model, info, path):
    """Logs what the converted network detects in an image."""
    from yolov3_tf2.files.images import decode_image
    from yolov3_tf2.inference.detector import Detector
    from yolov3_tf2.network.model_info import DEFAULT_SCORE_THRESHOLD

    detector = Detector(
        model,
        info.variant,
        info.size,
        score_threshold=DEFAULT_SCORE_THRESHOLD,
        iou_threshold=0.45,
        max_boxes=100,
    )
    # Published weights have no range for 16-bit images: each has its own.
    pixels = np.asarray(decode_image(path.read_bytes(), path, gray_range=None).rgb)
    (detections,) = detector([detector.prepare(pixels)])
    logging.info(
        "%s: %d objects with a score over %g",
        *(path, len(detections.scores), DEFAULT_SCORE_THRESHOLD),
    )
    for box, score, label in zip(*detections[:3], strict=True):
        corners = ", ".join(f"{value:.0f}" for value in box)
        logging.info("  %s %.2f at %s", info.class_names[label], score, corners)
    if not len(detections.scores):
        logging.warning(
            "no objects found: does the image show any of the classes, and do the "
            "weights belong to %s?",
            info.variant.name,
        )


def test_on_noise(model, size):
    """Raises an `InputError` unless the outputs for an image of noise are finite."""
    images = np.random.default_rng(0).random((1, size, size, 3), "float32")
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
