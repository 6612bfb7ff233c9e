"""Darknet `.cfg` texts of the three networks, for the importer of OpenCV.

They are independent of `network/model.py`: layers are numbered and routed as in
darknet. Anchors are a flat list of widths and heights, masks are given coarse scale
first.
"""

_NET = "[net]\nwidth={size}\nheight={size}\nchannels=3\n"


class _Cfg:
    def __init__(self, size, num_classes):
        self.text = _NET.format(size=size)
        self.num_classes = num_classes
        self.index = -1

    def add(self, kind, **keys):
        lines = "".join(f"{key}={value}\n" for key, value in keys.items())
        self.text += f"\n[{kind}]\n{lines}"
        self.index += 1

    def conv(self, filters, size, stride=1):
        self.add(
            "convolutional",
            batch_normalize=1,
            filters=filters,
            size=size,
            stride=stride,
            pad=1,
            activation="leaky",
        )

    def yolo(self, mask, anchors):
        filters = 3 * (5 + self.num_classes)
        self.add(
            "convolutional", filters=filters, size=1, stride=1, pad=1,
            activation="linear",
        )  # fmt: skip
        self.add(
            "yolo",
            mask=",".join(map(str, mask)),
            anchors=",".join(map(str, anchors)),
            classes=self.num_classes,
            num=len(anchors) // 2,
            thresh=0.0001,
        )


YOLOV3_ANCHORS = (
    10, 13, 16, 30, 33, 23, 30, 61, 62, 45, 59, 119, 116, 90, 156, 198, 373, 326,
)  # fmt: skip
TINY_ANCHORS = (10, 14, 23, 27, 37, 58, 81, 82, 135, 169, 344, 319)


def yolov3(
    size,
    num_classes,
    anchors=YOLOV3_ANCHORS,
    masks=((6, 7, 8), (3, 4, 5), (0, 1, 2)),
    spp=False,
):
    """Returns the cfg of yolov3, or with `spp` of yolov3-spp."""
    cfg = _Cfg(size, num_classes)
    cfg.conv(32, 3)
    stage_ends = {}
    for filters, blocks in ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4)):
        cfg.conv(filters, 3, stride=2)
        for _ in range(blocks):
            cfg.conv(filters // 2, 1)
            cfg.conv(filters, 3)
            cfg.add("shortcut", **{"from": -3, "activation": "linear"})
        stage_ends[filters] = cfg.index
    for filters, mask in zip((512, 256, 128), masks, strict=True):
        if filters != 512:
            cfg.add("route", layers=-4)
            cfg.conv(filters, 1)
            cfg.add("upsample", stride=2)
            cfg.add("route", layers=f"-1,{stage_ends[2 * filters]}")
        cfg.conv(filters, 1)
        cfg.conv(2 * filters, 3)
        cfg.conv(filters, 1)
        if spp and filters == 512:
            cfg.add("maxpool", stride=1, size=5)
            cfg.add("route", layers=-2)
            cfg.add("maxpool", stride=1, size=9)
            cfg.add("route", layers=-4)
            cfg.add("maxpool", stride=1, size=13)
            cfg.add("route", layers="-1,-3,-5,-6")
            cfg.conv(filters, 1)
        else:
            cfg.conv(2 * filters, 3)
            cfg.conv(filters, 1)
        cfg.conv(2 * filters, 3)
        if spp and filters == 512:
            # Four convolutions follow the pyramid: these are the last two.
            cfg.conv(filters, 1)
            cfg.conv(2 * filters, 3)
        cfg.yolo(mask, anchors)
    return cfg.text


def yolov3_spp(size, num_classes, **options):
    """Returns the cfg of yolov3-spp."""
    return yolov3(size, num_classes, spp=True, **options)


def yolov3_tiny(size, num_classes, anchors=TINY_ANCHORS, masks=((3, 4, 5), (1, 2, 3))):
    """Returns the cfg of yolov3-tiny, by default with the masks of its weights."""
    cfg = _Cfg(size, num_classes)
    for filters in (16, 32, 64, 128, 256, 512):
        cfg.conv(filters, 3)
        cfg.add("maxpool", size=2, stride=1 if filters == 512 else 2)
    cfg.conv(1024, 3)
    cfg.conv(256, 1)
    cfg.conv(512, 3)
    cfg.yolo(masks[0], anchors)
    cfg.add("route", layers=-4)
    cfg.conv(128, 1)
    cfg.add("upsample", stride=2)
    cfg.add("route", layers="-1,8")
    cfg.conv(256, 3)
    cfg.yolo(masks[1], anchors)
    return cfg.text


CFGS = {"yolov3": yolov3, "yolov3-spp": yolov3_spp, "yolov3-tiny": yolov3_tiny}
