"""Draws the built-in sample: a Suite export of coloured shapes, and random weights.

    python -m valohai_step.local.sample FOLDER

Writes `images.zip` and `labels.zip`, laid out as the Suite exports them, and
`yolov3-tiny.weights` with its `.cfg`, a darknet weights file of random numbers.
Downloads nothing.
"""

import io
import json
import math
import random
import sys
import uuid
import zipfile
from pathlib import Path

from PIL import Image, ImageDraw

from valohai_step import runtime
from yolov3_tf2.errors import InputError

SHAPES = ("circle", "square", "triangle")
COLOURS = ((226, 78, 66), (62, 142, 222), (92, 178, 90), (240, 186, 62), (150, 98, 200))
IMAGE_SIZE = 160
NUM_TRAIN, NUM_TEST = 480, 60
DATASET = "shapes"


def main():
    if len(sys.argv) != 2:
        raise InputError(
            f"expected one folder to write to, got {len(sys.argv) - 1} arguments."
        )
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    write_export(folder, NUM_TRAIN, NUM_TEST)
    runtime.import_tensorflow()
    import keras

    from yolov3_tf2.network import darknet, darknet_layers
    from yolov3_tf2.network.model import build_model
    from yolov3_tf2.network.variants import VARIANTS

    keras.utils.set_random_seed(0)
    variant = VARIANTS["yolov3-tiny"]
    model = build_model(variant, num_classes=80)
    darknet.write_weights(folder / "yolov3-tiny.weights", model)
    darknet_layers.write_cfg(folder / "yolov3-tiny.cfg", model, variant, variant.size)


def write_export(folder, num_train, num_test, seed=0, num_validation=0):
    """Writes `images.zip` and `labels.zip` of drawn images.

    The same seed draws the same images: those for training first, then those for
    testing, then those for validation.
    """
    tags = ["train"] * num_train + ["test"] * num_test
    tags += ["validation"] * num_validation
    rng = random.Random(seed)
    class_ids = {name: _uuid("class", name) for name in SHAPES}
    project = {
        "type": "image-siesta",
        "version": "0.6.5",
        "data_type": "image",
        "categorization": {"properties": []},
        "object_detection": {
            "keypoints": [],
            "annotation_types": ["box"],
            "object_groups": [],
            "object_classes": [
                {
                    "id": class_id,
                    "name": name,
                    "color": "#FF625A",
                    "properties": [],
                    "constraints": {},
                    "ai_class_map": [],
                    "annotation_type": "box",
                }
                for name, class_id in class_ids.items()
            ],
        },
    }
    with (
        zipfile.ZipFile(folder / "images.zip", "w") as images,
        zipfile.ZipFile(folder / "labels.zip", "w", zipfile.ZIP_DEFLATED) as labels,
    ):
        labels.writestr("project.json", json.dumps(project))
        for number, tag in enumerate(tags):
            key = f"{number:04d}.jpg"
            image, shapes = draw_image(rng)
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=90)
            # The Suite too adds an extension to the key.
            images.writestr(f"Shapes example/{key}.jpg", buffer.getvalue())
            label_id = _uuid("label", key)
            meta = {
                "data_key": key,
                "dataset": DATASET,
                "image_info": {"width": image.width, "height": image.height},
                "label_id": label_id,
                "label_path": [f"labels/{label_id}.json"],
                "tags": [{"name": tag}],
                "status": "SUBMITTED",
            }
            label = {
                "objects": [
                    _label_object(name, class_ids[name], box, f"{key}/{index}")
                    for index, (name, box) in enumerate(shapes)
                ],
                "categories": {"properties": []},
            }
            labels.writestr(f"meta/{DATASET}/{key}.json", json.dumps(meta))
            labels.writestr(f"labels/{label_id}.json", json.dumps(label))


def draw_image(rng):
    """Draws one image.

    Returns:
        The image, and its shapes: a list of pairs of a class name and a box, xyxy in
        pixels.
    """
    size = IMAGE_SIZE
    grey = rng.randint(200, 240)
    image = Image.new("RGB", (size, size), (grey, grey, grey))
    canvas = ImageDraw.Draw(image)
    for _ in range(12):  # Lines as clutter, so that edges alone do not mean a shape.
        ends = [rng.uniform(0, size) for _ in range(4)]
        shade = rng.randint(150, 200)
        canvas.line(ends, fill=(shade, shade, shade), width=rng.randint(1, 2))
    shapes = []
    for _ in range(rng.randint(1, 4)):
        half = rng.uniform(12, 30)
        x, y = (rng.uniform(half + 2, size - half - 2) for _ in range(2))
        box = (x - half, y - half, x + half, y + half)
        if any(_overlap(box, other) for _, other in shapes):
            continue
        name, colour = rng.choice(SHAPES), rng.choice(COLOURS)
        if name == "circle":
            canvas.ellipse(box, fill=colour)
        elif name == "square":
            canvas.rectangle(box, fill=colour)
        else:
            canvas.polygon((x, box[1], box[2], box[3], box[0], box[3]), fill=colour)
        shapes.append((name, box))
    return image, shapes


def _overlap(box, other, margin=3):
    """Whether two boxes are closer than a margin, all in pixels."""
    return not (
        box[2] + margin < other[0]
        or other[2] + margin < box[0]
        or box[3] + margin < other[1]
        or other[3] + margin < box[1]
    )


def _label_object(name, class_id, box, key):
    left, top, right, bottom = (math.floor(value * 10) / 10 for value in box)
    coord = {"x": left, "y": top, "width": right - left, "height": bottom - top}
    return {
        "id": _uuid("object", key),
        "class_id": class_id,
        "class_name": name,
        "annotation_type": "box",
        "annotation": {"coord": coord, "meta": {"z_index": 1}},
        "properties": [],
        "tracking_id": None,
    }


def _uuid(kind, name):
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{kind}/{name}"))


if __name__ == "__main__":
    runtime.run_step(main)
