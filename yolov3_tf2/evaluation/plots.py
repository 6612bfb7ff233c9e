"""Plots of a training run: curves over its epochs, and the errors of a model."""

import functools
import logging

import matplotlib
import numpy as np

from yolov3_tf2.evaluation import coco, draw, matching

matplotlib.use("Agg")  # Draws to files, also on machines without a screen.

from matplotlib import font_manager
from matplotlib.figure import Figure

# The font for class names has no bold face, and matplotlib warns about it every time.
logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)


def curves(history, evaluated):
    """Plots the losses and the accuracy over the epochs.

    Args:
        history: list of dicts, one per epoch, with `epoch` and any of the results of
            `Trainer.train_epoch` and `Trainer.evaluate`.
        evaluated: name of the evaluated images, for the titles.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    panels = (
        ("loss", ("loss", "val_loss")),
        ("parts of the loss", ("loss_box", "loss_objectness", "loss_class")),
        (
            f"parts of the loss, {evaluated} images",
            ("val_loss_box", "val_loss_objectness", "val_loss_class"),
        ),
        (f"accuracy, {evaluated} images", ("AP", "AP50", "AP75")),
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
    """Plots precision over recall at an IoU of 0.5, one curve per class.

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
        # [IoU thresholds, recalls, classes, areas, max detections]; the first IoU
        # threshold is 0.5.
        values = evaluation.eval["precision"][0, :, index, 0, -1]
        if (values > -1).all():
            axis.plot(recalls, values, label=f"{name} {values.mean():.2f}")
    axis.set(title="precision and recall, IoU 0.5", xlabel="recall", ylabel="precision")
    axis.set(xlim=(0, 1), ylim=(0, 1.02))
    axis.grid(alpha=0.3)
    if axis.has_data():
        axis.legend(title="class, AP50", fontsize="small")
    return figure


def confusion_matrix(images, class_names, score_threshold):
    """Plots how often each class was detected for each labelled class.

    Args:
        images: list of `coco.EvaluatedImage`.
        class_names: list of strings.
        score_threshold: detections with a lower score are ignored.

    Returns:
        A `matplotlib.figure.Figure`. The last row and column are the background:
        detections without a label, and labels without a detection.
    """
    counts = matching.confusion_counts(
        images, len(class_names), score_threshold=score_threshold
    )
    names = [*class_names, "background"]
    side = min(24, max(5, 2.5 + 0.55 * len(names)))
    figure, (axis,) = _figure(side + 1, side, 1, 1)
    # Shaded by the share of a row, so that rare classes are visible too.
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            colour = "white" if shares[row, column] > 0.5 else "black"
            axis.text(column, row, count, ha="center", va="center", color=colour)
    axis.set_xticks(range(len(names)), names, rotation=60, ha="right")
    axis.set_yticks(range(len(names)), names)
    axis.set(xlabel="detected", ylabel="labelled")
    axis.set_title(
        f"score {score_threshold:.2f} or more, IoU {matching.MATCH_IOU} or more"
    )
    return figure


def _figure(width, height, rows, columns):
    """Returns a figure of a size in inches, and a flat list of its axes."""
    # The second font has the letters of class names that the first lacks.
    matplotlib.rcParams["font.family"] = ["DejaVu Sans", _cjk_family()]
    figure = Figure((width, height), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


@functools.cache
def _cjk_family():
    """Registers the font of draw.py with matplotlib; returns its name."""
    font_manager.fontManager.addfont(draw.font_path())
    return font_manager.FontProperties(fname=draw.font_path()).get_name()
