"""COCO average precision through pycocotools, and the COCO format that it reads."""

import contextlib
import io

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def categories(class_names):
    """Returns the COCO categories of a list of names; the ids start at 1."""
    return [
        {"id": number, "name": name} for number, name in enumerate(class_names, start=1)
    ]


def annotations(image_id, boxes_px, labels, scores=None):
    """Returns the COCO annotations of one picture, without ids.

    Args:
        image_id: id of the picture.
        boxes_px: `[boxes, 4]` xyxy, pixels.
        labels: `[boxes]` class indices.
        scores: `[boxes]` in [0, 1] for detections, None for labels.
    """
    found = []
    for i, (left, top, right, bottom) in enumerate(np.asarray(boxes_px).tolist()):
        width, height = right - left, bottom - top
        annotation = {
            "image_id": image_id,
            "category_id": int(labels[i]) + 1,
            "bbox": [round(value, 3) for value in (left, top, width, height)],
            "area": round(width * height, 3),
            "iscrowd": 0,
        }
        if scores is not None:
            annotation["score"] = round(float(scores[i]), 6)
        found.append(annotation)
    return found


def number_annotations(lists):
    """Joins lists of annotations and gives each its id, from 1 on."""
    return [
        {"id": number, **annotation}
        for number, annotation in enumerate(
            (annotation for part in lists for annotation in part), start=1
        )
    ]


def average_precision(images, class_names, truth, detections):
    """Computes COCO AP of detections against labels.

    Args:
        images: COCO `images`, each at least with an id.
        class_names: list of strings.
        truth: labels, see `number_annotations`.
        detections: the same, with scores.

    Returns:
        A dict: `AP` (mean over IoU 0.50 to 0.95), `AP50`, `AP75`, and for each class
        that has labels `AP50/<name>`. The first three are NaN without any labels.
    """
    # pycocotools prints its progress; errors it raises.
    with contextlib.redirect_stdout(io.StringIO()):
        labelled = COCO()
        labelled.dataset = {
            "images": images,
            "categories": categories(class_names),
            "annotations": truth,
        }
        labelled.createIndex()
        found = COCO()
        found.dataset = {**labelled.dataset, "annotations": detections}
        found.createIndex()
        evaluation = COCOeval(labelled, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    # [IoU thresholds, recalls, classes, areas, max detections]; -1 where no labels.
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    thresholds = evaluation.params.iouThrs

    def mean(values):
        values = values[values > -1]
        return float(values.mean()) if values.size else float("nan")

    ap50 = precision[np.isclose(thresholds, 0.5)]
    results = {
        "AP": mean(precision),
        "AP50": mean(ap50),
        "AP75": mean(precision[np.isclose(thresholds, 0.75)]),
    }
    for index, name in enumerate(class_names):
        if (ap50[:, :, index] > -1).any():
            results[f"AP50/{name}"] = mean(ap50[:, :, index])
    return results
