"""Contact sheets of images with their boxes, to check them by eye."""

import math

import numpy as np
from absl import logging
from PIL import Image

from yolov3_tf2.errors import InputError
from yolov3_tf2.evaluation import draw
from yolov3_tf2.files.images import load_rgb

_GREY = (128, 128, 128)


def load_to_draw(encoded, name):
    """Returns an image as RGB; a grey one, with a warning, if it cannot be decoded.

    A contact sheet is no reason to end a run.
    """
    try:
        return load_rgb(encoded, name)
    except InputError as error:
        logging.warning("cannot be drawn: %s", error)
        return Image.new("RGB", (320, 320), _GREY)


def records_mosaic(records, class_names, tile_size=320):
    """Draws records with their boxes.

    Args:
        records: list of records with the attributes `encoded`, `source_id`, `boxes_px`
            and `labels`, see `records.serialize_example`; at least one.
        class_names: list of strings.
        tile_size: width and height of the square for each image, pixels.

    Returns:
        A `PIL.Image.Image`, RGB.
    """
    tiles = [
        _draw_tile(
            load_to_draw(record.encoded, record.source_id),
            record.boxes_px,
            record.labels,
            class_names,
            tile_size,
        )
        for record in records
    ]
    return _arrange(tiles, _square_columns(tiles), tile_size)


def batch_mosaic(images, boxes, labels, class_names, tile_size=320):
    """Draws images with their boxes as a training step receives them.

    Args:
        images: `[images, size, size, 3]` in [0, 1].
        boxes: `[images, boxes, 4]` xyxy, fractions, padded with boxes without area.
        labels: `[images, boxes]` class indices.
        class_names: list of strings.
        tile_size: width and height of the square for each image, pixels.

    Returns:
        A `PIL.Image.Image`, RGB.
    """
    tiles = []
    for image, own_boxes, own_labels in zip(images, boxes, labels, strict=True):
        is_box = (own_boxes[:, 2:] > own_boxes[:, :2]).all(axis=-1)
        array = np.round(np.asarray(image) * 255).astype("uint8")
        tiles.append(
            _draw_tile(
                Image.fromarray(array),
                own_boxes[is_box] * array.shape[0],
                own_labels[is_box],
                class_names,
                tile_size,
            )
        )
    return _arrange(tiles, _square_columns(tiles), tile_size)


def worst_mosaic(worst, rgb_images, class_names, score_threshold, tile_size=400):
    """Draws images twice: with their labels on the left, their detections on the right.

    Args:
        worst: list of `coco.EvaluatedImage`, at least one.
        rgb_images: the `PIL.Image.Image` of each.
        class_names: list of strings.
        score_threshold: detections with a lower score are not drawn.
        tile_size: width and height of the square for each drawing, pixels.

    Returns:
        A `PIL.Image.Image`, RGB, with two images in a row.
    """
    tiles = []
    for evaluated, rgb in zip(worst, rgb_images, strict=True):
        tiles.append(
            _draw_tile(
                rgb, evaluated.boxes_px, evaluated.labels, class_names, tile_size
            )
        )
        found = evaluated.detections
        shown = found.scores >= score_threshold
        tiles.append(
            _draw_tile(
                rgb,
                found.boxes_px[shown],
                found.labels[shown],
                class_names,
                tile_size,
                found.scores[shown],
            )
        )
    return _arrange(tiles, min(4, len(tiles)), tile_size)


def _draw_tile(image, boxes_px, labels, class_names, tile_size, scores=None):
    """Returns an image scaled to fit into a square, with boxes drawn on it."""
    # Scaled before the boxes are drawn, so that lines and names stay legible.
    scale = tile_size / max(image.size)
    size = [max(1, round(side * scale)) for side in image.size]
    boxes = [[value * scale for value in box] for box in boxes_px]
    return draw.draw_boxes(image.resize(size), boxes, labels, class_names, scores)


def _square_columns(tiles):
    """Returns the number of columns with which a mosaic is about square."""
    return math.ceil(math.sqrt(len(tiles)))


def _arrange(tiles, columns, tile_size):
    """Returns tiles side by side, each in the middle of a grey square."""
    rows = math.ceil(len(tiles) / columns)
    mosaic = Image.new("RGB", (columns * tile_size, rows * tile_size), _GREY)
    for number, tile in enumerate(tiles):
        left = number % columns * tile_size + (tile_size - tile.width) // 2
        top = number // columns * tile_size + (tile_size - tile.height) // 2
        mosaic.paste(tile, (left, top))
    return mosaic
