"""Darknet's three networks: their strides and anchors."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Variant:
    """One of darknet's three networks.

    Attributes:
        name: `yolov3`, `yolov3-spp` or `yolov3-tiny`.
        anchors: per output scale, coarse first, the anchors' (width, height) in
            pixels of the network's input, whatever its size.
        strides: per output scale, pixels of the input a cell.
    """

    name: str
    anchors: tuple[tuple[tuple[int, int], ...], ...]
    strides: tuple[int, ...]

    def num_anchors(self, scale):
        """The number of anchors a cell at one scale."""
        return len(self.anchors[scale])

    def grid_size(self, scale, image_size):
        """Rows, and columns, of one scale for a square input of `image_size` pixels."""
        return image_size // self.strides[scale]


_YOLOV3_ANCHORS = (
    ((116, 90), (156, 198), (373, 326)),
    ((30, 61), (62, 45), (59, 119)),
    ((10, 13), (16, 30), (33, 23)),
)


# The published cfg gives the fine head anchors 0, 1, 2 of its list; the official
# weights were trained with 1, 2, 3: AP50 of five classes on 79 COCO photographs is 0.33
# with these and 0.11 with those.
_TINY_ANCHORS = (
    ((81, 82), (135, 169), (344, 319)),
    ((23, 27), (37, 58), (81, 82)),
)


VARIANTS = {
    variant.name: variant
    for variant in (
        Variant("yolov3", _YOLOV3_ANCHORS, (32, 16, 8)),
        Variant("yolov3-spp", _YOLOV3_ANCHORS, (32, 16, 8)),
        Variant("yolov3-tiny", _TINY_ANCHORS, (32, 16)),
    )
}
