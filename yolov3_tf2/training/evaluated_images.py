"""A batch's labels and detections, converted to pixels of the original images."""

from yolov3_tf2.evaluation.coco import EvaluatedImage
from yolov3_tf2.inference import detector


def evaluated_images(batch, selected, size):
    """Returns a list of `coco.EvaluatedImage`, without images of weight 0.

    Args:
        batch: a batch of `build_dataset`.
        selected: the results of `nms.suppress` for it, as arrays.
        size: side of the network's input, pixels.
    """
    names = ("weights", "numbers", "sizes", "boxes", "labels")
    values = [batch[name].numpy() for name in names]
    images = []
    for weight, number, size_px, boxes, labels, *detected in zip(
        *values, *selected, strict=True
    ):
        if not weight:
            continue
        is_box = (boxes[:, 2:] > boxes[:, :2]).all(axis=-1)  # The others are padding.
        images.append(
            EvaluatedImage(
                int(number),
                detector.boxes_to_pixels(boxes[is_box], size_px, size),
                labels[is_box],
                detector.to_detections(*detected, size_px, size),
            )
        )
    return images
