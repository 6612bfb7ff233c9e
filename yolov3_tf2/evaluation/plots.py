"""Pictures about data and about training: mosaics, curves, errors."""

import functools
import logging
import math

import matplotlib
import numpy as np
from PIL import Image

from yolov3_tf2.evaluation import coco, draw, matching
from yolov3_tf2.files.images import load_rgb

matplotlib.use("Agg")  # Draws to files, on machines without a screen too.

from matplotlib import font_manager
from matplotlib.figure import Figure

# The letters for class names have one weight; matplotlib says so each time.
logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)

_GREY = (128, 128, 128)
# What a person would call a detection, and the overlap that makes it a right one.
SHOWN_SCORE, MATCH_IOU = 0.3, 0.5


def records_mosaic(records, class_names, tile=320):
    """Draws labelled pictures side by side.

    Args:
        records: list of `export.Record`, at least one.
        class_names: list of strings.
        tile: side of the square that each picture is fitted into, pixels.

    Returns:
        A `PIL.Image.Image`, RGB.
    """
    return _mosaic(
        [
            _labelled_tile(
                load_rgb(record.encoded, record.source_id),
                record.boxes_px,
                record.labels,
                class_names,
                tile,
            )
            for record in records
        ],
        math.ceil(math.sqrt(len(records))),
        tile,
    )


def batch_mosaic(images, boxes, labels, class_names, tile=320):
    """Draws pictures as a training step sees them, with their boxes.

    Args:
        images: `[pictures, size, size, 3]` in [0, 1].
        boxes: `[pictures, boxes, 4]` xyxy, fractions, padded with boxes without area.
        labels: `[pictures, boxes]` class indices.
        class_names: list of strings.
        tile: side of a picture in the mosaic, pixels.

    Returns:
        A `PIL.Image.Image`, RGB.
    """
    tiles = []
    for image, own_boxes, own_labels in zip(images, boxes, labels, strict=True):
        is_box = (own_boxes[:, 2:] > own_boxes[:, :2]).all(axis=-1)
        array = np.round(np.asarray(image) * 255).astype("uint8")
        tiles.append(
            _labelled_tile(
                Image.fromarray(array),
                own_boxes[is_box] * array.shape[0],
                own_labels[is_box],
                class_names,
                tile,
            )
        )
    return _mosaic(tiles, math.ceil(math.sqrt(len(tiles))), tile)


def worst_mosaic(worst, images, class_names, tile=400):
    """Draws pictures with their labels on the left and what was found on the right.

    Args:
        worst: list of `coco.EvaluatedImage`, at least one.
        images: a `PIL.Image.Image` for each.
        class_names: list of strings.
        tile: side of the square that each is fitted into, pixels.

    Returns:
        A `PIL.Image.Image`, RGB; two pairs in a row.
    """
    tiles = []
    for picture, image in zip(worst, images, strict=True):
        found = picture.detected
        shown = found.scores >= SHOWN_SCORE
        tiles.append(
            _labelled_tile(image, picture.boxes_px, picture.labels, class_names, tile)
        )
        tiles.append(
            _labelled_tile(
                image,
                found.boxes_px[shown],
                found.labels[shown],
                class_names,
                tile,
                found.scores[shown],
            )
        )
    return _mosaic(tiles, min(4, len(tiles)), tile)


def curves(history):
    """Plots losses and accuracy over the epochs.

    Args:
        history: list of dicts, one an epoch, with `epoch` and any of the results of
            `Trainer.train_epoch` and `Trainer.evaluate`.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    panels = (
        ("loss", ("loss", "val_loss")),
        ("parts of the loss", ("loss_box", "loss_objectness", "loss_class")),
        (
            "parts, test pictures",
            ("val_loss_box", "val_loss_objectness", "val_loss_class"),
        ),
        ("accuracy, test pictures", ("AP", "AP50", "AP75")),
    )
    figure, axes = _figure(10, 7, 2, 2)
    for axis, (title, names) in zip(axes, panels, strict=True):
        for name in names:
            points = [(row["epoch"], row[name]) for row in history if name in row]
            if points:
                axis.plot(*zip(*points, strict=True), marker=".", label=name)
        axis.set_title(title)
        axis.set_xlabel("epoch")
        axis.grid(alpha=0.3)
        if axis.has_data():
            axis.legend()
    axes[-1].set_ylim(0, 1)
    return figure


def precision_recall(images, class_names):
    """Plots precision over recall at an IoU of 0.5, a curve a class.

    Args:
        images: list of `coco.EvaluatedImage`.
        class_names: list of strings.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    evaluation = coco.evaluate_images(images, class_names)
    recalls = evaluation.params.recThrs
    figure, (axis,) = _figure(7, 6, 1, 1)
    for index, name in enumerate(class_names):
        # [IoU thresholds, recalls, classes, areas, max detections], 0.5 the first.
        values = evaluation.eval["precision"][0, :, index, 0, -1]
        if (values > -1).all():
            axis.plot(recalls, values, label=f"{name} {values.mean():.2f}")
    axis.set(title="precision and recall, IoU 0.5", xlabel="recall", ylabel="precision")
    axis.set(xlim=(0, 1), ylim=(0, 1.02))
    axis.grid(alpha=0.3)
    if axis.has_data():
        axis.legend(title="class, AP50", fontsize="small")
    return figure


def confusion_matrix(images, class_names):
    """Plots which class was found where which was labelled.

    Args:
        images: list of `coco.EvaluatedImage`.
        class_names: list of strings.

    Returns:
        A `matplotlib.figure.Figure`; the last row and column are the background:
        found where nothing is labelled, and labels that nothing was found for.
    """
    counts = matching.confusion_counts(
        images, len(class_names), score_threshold=SHOWN_SCORE, iou_threshold=MATCH_IOU
    )
    names = [*class_names, "background"]
    side = min(24, max(5, 2.5 + 0.55 * len(names)))
    figure, (axis,) = _figure(side + 1, side, 1, 1)
    # Shaded by share of the labels of a class, so that rare classes show too.
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            colour = "white" if shares[row, column] > 0.5 else "black"
            axis.text(column, row, count, ha="center", va="center", color=colour)
    axis.set_xticks(range(len(names)), names, rotation=60, ha="right")
    axis.set_yticks(range(len(names)), names)
    axis.set(xlabel="found", ylabel="labelled")
    axis.set_title(f"score {SHOWN_SCORE} or more, IoU {MATCH_IOU} or more")
    return figure


def _figure(width, height, rows, columns):
    """A figure of inches, and a flat list of its axes; class names in any script."""
    matplotlib.rcParams["font.family"] = ["DejaVu Sans", _cjk_family()]
    figure = Figure((width, height), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


@functools.cache
def _cjk_family():
    """Makes the letters that draw.py uses known to matplotlib; returns their name."""
    font_manager.fontManager.addfont(draw.font_path())
    return font_manager.FontProperties(fname=draw.font_path()).get_name()


def _labelled_tile(image, boxes_px, labels, class_names, tile, scores=None):
    """A picture fitted into a square of `tile` pixels, with boxes drawn on it."""
    # Scaled before the boxes are drawn, so that lines and names stay legible.
    scale = tile / max(image.size)
    size = [max(1, round(side * scale)) for side in image.size]
    boxes = [[value * scale for value in box] for box in boxes_px]
    return draw.draw_boxes(image.resize(size), boxes, labels, class_names, scores)


def _mosaic(tiles, columns, tile):
    rows = math.ceil(len(tiles) / columns)
    mosaic = Image.new("RGB", (columns * tile, rows * tile), _GREY)
    for number, image in enumerate(tiles):
        left = number % columns * tile + (tile - image.width) // 2
        top = number // columns * tile + (tile - image.height) // 2
        mosaic.paste(image, (left, top))
    return mosaic
