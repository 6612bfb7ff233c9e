"""Logits to boxes and scores, and back.

YOLOv3 (https://arxiv.org/abs/1804.02767, section 2.1) lays a grid over the input at
two or three strides. A cell has three anchors; each predicts one box:

    x = (column + sigmoid(tx)) / columns      w = anchor_w * exp(tw)
    y = (row    + sigmoid(ty)) / rows         h = anchor_h * exp(th)

`decode_boxes` and `encode_boxes` are inverse to each other.
"""

from keras import ops

from yolov3_tf2.boxes import geometry

# exp(10) is 22,026 anchors wide: no real box, and far from overflow, whose inf - inf
# would turn an IoU into NaN.
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
    """Returns xyxy boxes, fractions, of `offsets` `[..., 4]`: tx, ty, tw, th logits."""
    corner, grid, anchors = _frame(offsets, variant, scale)
    centres = (ops.sigmoid(offsets[..., :2]) + corner) / grid
    sizes = ops.exp(ops.minimum(offsets[..., 2:4], MAX_LOG_SIZE)) * anchors
    return geometry.xywh_to_xyxy(ops.concatenate([centres, sizes], axis=-1))


def encode_boxes(boxes, variant, scale):
    """The inverse of `decode_boxes`, as targets of a loss on its logits.

    Args:
        boxes: `[batch, rows, cols, anchors, 4]` xyxy, fractions, each in the cell of
            its centre.

    Returns:
        `[batch, rows, cols, anchors, 4]`: sigmoid(tx), sigmoid(ty), which are the
        centre's place in its cell in [0, 1], then tw, th. Of a box without area tw
        and th are far below zero but finite.
    """
    corner, grid, anchors = _frame(boxes, variant, scale)
    boxes_xywh = geometry.xyxy_to_xywh(boxes)
    in_cell = boxes_xywh[..., :2] * grid - corner
    log_size = ops.log(ops.maximum(boxes_xywh[..., 2:], 1e-9) / anchors)
    return ops.concatenate([in_cell, log_size], axis=-1)


def _frame(tensor, variant, scale):
    """Cell corners `[rows, cols, 1, 2]`, grid size `[2]` and anchors `[anchors, 2]`.

    All x then y; the anchors are fractions of the input, whose size the grid tells.
    """
    rows, cols = ops.shape(tensor)[1], ops.shape(tensor)[2]
    column, row = ops.meshgrid(ops.arange(cols), ops.arange(rows))  # [rows, cols]
    corner = ops.cast(ops.stack([column, row], axis=-1)[:, :, None, :], "float32")
    grid = ops.cast(ops.stack([cols, rows]), "float32")
    anchors_px = ops.convert_to_tensor(variant.anchors[scale], dtype="float32")
    return corner, grid, anchors_px / (grid * variant.strides[scale])
