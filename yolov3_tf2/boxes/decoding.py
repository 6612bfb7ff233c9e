"""Decodes logits into boxes and scores, and encodes boxes.

YOLOv3 (https://arxiv.org/abs/1804.02767, section 2.1) divides the input into cells at
two or three strides. A cell has three anchors, and each of them predicts one box:

    x = (column + sigmoid(tx)) / columns      w = anchor_w * exp(tw)
    y = (row    + sigmoid(ty)) / rows         h = anchor_h * exp(th)

`decode_boxes` and `encode_boxes` invert each other.
"""

from keras import ops

from yolov3_tf2.boxes import geometry

# exp(10) is 22,026 times the anchor, which no box reaches, and far from an overflow:
# inf - inf would turn an IoU into NaN.
MAX_LOG_SIZE = 10.0


def decode_logits(logits, variant, scale):
    """Turns the logits of one scale into boxes and probabilities.

    Args:
        logits: `[batch, rows, cols, anchors, 5 + classes]`, see `build_model`.
        variant: a `Variant`.
        scale: index of the scale, 0 the coarsest.

    Returns:
        boxes `[batch, rows, cols, anchors, 4]` xyxy as fractions of the input;
        objectness `[batch, rows, cols, anchors]` and class probabilities
        `[batch, rows, cols, anchors, classes]`, both in [0, 1]. Float32.
    """
    logits = ops.cast(logits, "float32")
    boxes = decode_boxes(logits[..., :4], variant, scale)
    return boxes, ops.sigmoid(logits[..., 4]), ops.sigmoid(logits[..., 5:])


def decode_boxes(offsets, variant, scale):
    """Decodes offsets into boxes.

    Args:
        offsets: `[batch, rows, cols, anchors, 4]`, the logits tx, ty, tw, th.

    Returns:
        `[batch, rows, cols, anchors, 4]` xyxy, fractions of the input.
    """
    corner, grid, anchors = _build_grid(offsets, variant, scale)
    centres = (ops.sigmoid(offsets[..., :2]) + corner) / grid
    sizes = ops.exp(ops.minimum(offsets[..., 2:4], MAX_LOG_SIZE)) * anchors
    return geometry.xywh_to_xyxy(ops.concatenate([centres, sizes], axis=-1))


def encode_boxes(boxes, variant, scale):
    """Encodes boxes as the targets of a loss on logits; inverts `decode_boxes`.

    Args:
        boxes: `[batch, rows, cols, anchors, 4]` xyxy, fractions of the input, each
            at the cell of its centre.

    Returns:
        `[batch, rows, cols, anchors, 4]`: sigmoid(tx) and sigmoid(ty), the centre's
        position in its cell in [0, 1], then tw and th. For a box without area, tw and
        th are far below zero but finite.
    """
    corner, grid, anchors = _build_grid(boxes, variant, scale)
    boxes_xywh = geometry.xyxy_to_xywh(boxes)
    in_cell = boxes_xywh[..., :2] * grid - corner
    log_size = ops.log(ops.maximum(boxes_xywh[..., 2:], 1e-9) / anchors)
    return ops.concatenate([in_cell, log_size], axis=-1)


def _build_grid(tensor, variant, scale):
    """Cell corners `[rows, cols, 1, 2]`, grid size `[2]` and anchors `[anchors, 2]`.

    All are x then y. The anchors are fractions of the input.
    """
    rows, cols = ops.shape(tensor)[1], ops.shape(tensor)[2]
    column, row = ops.meshgrid(ops.arange(cols), ops.arange(rows))  # [rows, cols]
    corner = ops.cast(ops.stack([column, row], axis=-1)[:, :, None, :], "float32")
    grid = ops.cast(ops.stack([cols, rows]), "float32")
    anchors_px = ops.convert_to_tensor(variant.anchors[scale], dtype="float32")
    return corner, grid, anchors_px / (grid * variant.strides[scale])
