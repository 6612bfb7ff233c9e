"""The three networks of darknet: their strides, anchors and sizes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Variant:
    """One of the three networks of darknet.

    Attributes:
        name: `yolov3`, `yolov3-spp` or `yolov3-tiny`.
        anchors: per output scale, coarse first, the (width, height) of each anchor in
            pixels of the network's input, whatever its size.
        strides: per output scale, the side of a cell in pixels of the input.
        size: width and height of the input in the published cfg, pixels.
    """

    name: str
    anchors: tuple[tuple[tuple[float, float], ...], ...]
    strides: tuple[int, ...]
    size: int

    def num_anchors(self, scale):
        """Returns the number of anchors of each cell at one scale."""
        return len(self.anchors[scale])

    def grid_size(self, scale, image_size):
        """Returns the rows, and columns, of one scale for a square input in pixels."""
        return image_size // self.strides[scale]


_YOLOV3_ANCHORS = (
    ((116, 90), (156, 198), (373, 326)),
    ((30, 61), (62, 45), (59, 119)),
    ((10, 13), (16, 30), (33, 23)),
)
# The published cfg assigns anchors 0, 1 and 2 of its list to the fine scale, but the
# official weights were trained with 1, 2 and 3: on 79 COCO images, AP50 of five classes
# is 0.33 with 1, 2 and 3, and 0.11 with 0, 1 and 2.
_TINY_ANCHORS = (
    ((81, 82), (135, 169), (344, 319)),
    ((23, 27), (37, 58), (81, 82)),
)

VARIANTS = {
    variant.name: variant
    for variant in (
        # The sizes are width= of `cfg/<name>.cfg` in https://github.com/pjreddie/darknet.
        Variant("yolov3", _YOLOV3_ANCHORS, (32, 16, 8), 608),
        Variant("yolov3-spp", _YOLOV3_ANCHORS, (32, 16, 8), 608),
        Variant("yolov3-tiny", _TINY_ANCHORS, (32, 16), 416),
    )
}
