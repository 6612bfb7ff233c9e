"""Darknet `.cfg` files: the layers, anchors, classes and size of a network."""

from typing import NamedTuple

from yolov3_tf2.errors import InputError
from yolov3_tf2.network.cfg_sections import (
    read_number,
    read_numbers,
    read_sections,
    require,
)

NUM_MASKS = 3  # Anchors of each scale, in all networks of this project.
MAX_CLASSES = 10_000

# The options of each kind of layer that change what it computes, with darknet's
# defaults; None is no value. Options of training only are left out.
OPTIONS = {
    "convolutional": {
        "batch_normalize": 0,
        "filters": 1,
        "size": 1,
        "stride": 1,
        "stride_x": None,
        "stride_y": None,
        "padding": 0,
        "activation": "logistic",
        "groups": 1,
        "dilation": 1,
        "antialiasing": 0,
        "share_index": None,
        "binary": 0,
        "xnor": 0,
        "sway": 0,
        "rotate": 0,
        "stretch": 0,
        "stretch_sway": 0,
    },
    "maxpool": {
        "size": None,  # The stride.
        "stride": 1,
        "stride_x": None,
        "stride_y": None,
        "padding": None,  # The size, less one.
        "maxpool_depth": 0,
        "antialiasing": 0,
    },
    "route": {"layers": "", "groups": 1, "group_id": 0},
    "shortcut": {"from": "", "activation": "linear", "weights_type": "none"},
    "upsample": {"stride": 2, "scale": 1},
    "yolo": {
        "classes": 20,
        "num": 1,
        "mask": "",
        "anchors": "",
        "scale_x_y": 1,
        "new_coords": 0,
    },
}


class Layer(NamedTuple):
    """A layer as darknet builds it.

    Attributes:
        kind: name of its section, such as `convolutional`.
        options: dict of the options in `OPTIONS`, with `padding` in pixels and with
            layers (of `route` and `shortcut`) as a tuple of their indices. A yolo layer
            has `masks`, the number of its anchors, instead of the anchors.
    """

    kind: str
    options: dict


class Cfg(NamedTuple):
    """The content of a cfg.

    Attributes:
        layers: list of `Layer`.
        lines: list of the number of each layer's line.
        anchors: per output scale, in the order of the cfg, (width, height) of each
            anchor in pixels of the network's input.
        num_classes: number of classes.
        width, height: of the network's input, pixels.
    """

    layers: list[Layer]
    lines: list[int]
    anchors: tuple
    num_classes: int
    width: int
    height: int


def read_cfg(path):
    """Reads a cfg, and checks what does not depend on the network.

    Args:
        path: `pathlib.Path` of the file.

    Returns:
        A `Cfg`.

    Raises:
        InputError: it is no cfg of a network with [yolo] layers of three anchors each,
            or its parts contradict each other.
    """
    net, *sections = read_sections(path)
    width, height = (read_number(path, net, key, 0) for key in ("width", "height"))
    require(
        width > 0 and height > 0 and not width % 32 and not height % 32,
        *(path, net, "width and height that are multiples of 32"),
        f"width={width} height={height}",
    )
    channels = read_number(path, net, "channels", 0)
    require(channels == 3, path, net, "channels=3, red, green, blue", channels)
    layers = [_read_layer(path, section, i) for i, section in enumerate(sections)]
    heads = [i for i, layer in enumerate(layers) if layer.kind == "yolo"]
    if not heads:
        raise InputError(
            f"{path}: expected [yolo] sections, got only "
            f"{', '.join(sorted({section.kind for section in sections})) or 'none'}; "
            "[region] and [detection] belong to YOLOv2 and YOLOv1, and a classifier or "
            "a backbone has none of them."
        )
    anchors = tuple(_read_anchors(path, sections[i]) for i in heads)
    _check_heads(path, sections, layers, heads)
    return Cfg(
        layers,
        [section.line for section in sections],
        anchors,
        layers[heads[0]].options["classes"],
        width,
        height,
    )


def describe_layer(layer):
    """Returns a layer as one line, without the options that have their default."""
    defaults = OPTIONS.get(layer.kind, {})
    shown = [
        f"{key}={_describe_value(value)}"
        for key, value in layer.options.items()
        if key not in defaults or value != defaults[key]
    ]
    return " ".join([f"[{layer.kind}]", *shown])


def _describe_value(value):
    return ",".join(map(str, value)) if isinstance(value, tuple) else value


def _read_layer(path, section, index):
    """Returns the `Layer` of a section, the `index`-th one after [net]."""
    if section.kind not in OPTIONS:
        return Layer(section.kind, {})
    options = {}
    for key, default in OPTIONS[section.kind].items():
        if isinstance(default, str):
            options[key] = section.options.get(key, default)
        else:
            options[key] = read_number(path, section, key, default)
    if section.kind == "convolutional" and read_number(path, section, "pad", 0):
        options["padding"] = options["size"] // 2
    elif section.kind == "maxpool":
        if options["size"] is None:
            options["size"] = options["stride"]
        if options["padding"] is None:
            options["padding"] = options["size"] - 1
    elif section.kind in ("route", "shortcut"):
        key = "layers" if section.kind == "route" else "from"
        options[key] = _read_indices(path, section, key, index)
    elif section.kind == "yolo":
        for key in ("num", "mask", "anchors"):
            del options[key]
        options["masks"] = len(_read_mask(path, section))
    return Layer(section.kind, options)


def _read_indices(path, section, key, index):
    """Returns the layers that a layer reads, as indices from the first layer."""
    values = read_numbers(path, section, key)
    indices = tuple(int(v) if v >= 0 else index + int(v) for v in values)
    require(
        bool(indices) and all(0 <= i < index for i in indices),
        *(path, section, f"{key}= of earlier layers, 0 to {index - 1} or below 0"),
        f"{key}={section.options.get(key, '')}",
    )
    return indices


def _read_mask(path, section):
    """Returns the indices of the anchors of a [yolo] section; all without a mask."""
    if "mask" in section.options:
        return [int(value) for value in read_numbers(path, section, "mask")]
    return list(range(read_number(path, section, "num", 1)))


def _read_anchors(path, section):
    """Returns the (width, height) of the anchors in the mask of a [yolo] section."""
    mask = _read_mask(path, section)
    require(
        len(mask) == NUM_MASKS,
        *(path, section, f"{NUM_MASKS} anchors in mask=, as the networks have"),
        f"mask={section.options.get('mask', '(none)')}",
    )
    values = read_numbers(path, section, "anchors")
    num = read_number(path, section, "num", 1)
    require(
        len(values) == 2 * num and all(0 < value < 1e5 for value in values),
        *(path, section, f"{num} widths and heights above 0 in anchors=, as num={num}"),
        f"{len(values)} numbers",
    )
    require(
        all(0 <= i < num for i in mask),
        *(path, section, f"mask= of 0 to {num - 1}, as there are {num} anchors"),
        f"mask={section.options['mask']}",
    )
    whole = [int(v) if v == int(v) else v for v in values]
    return tuple((whole[2 * i], whole[2 * i + 1]) for i in mask)


def _check_heads(path, sections, layers, heads):
    """Raises an `InputError` where classes, masks and filters contradict each other."""
    num_classes = layers[heads[0]].options["classes"]
    for i in heads:
        classes, masks = (layers[i].options[key] for key in ("classes", "masks"))
        require(
            classes == num_classes and 0 < classes <= MAX_CLASSES,
            *(path, sections[i]),
            f"the same classes= from 1 to {MAX_CLASSES:,} in every [yolo]",
            f"classes={classes}",
        )
        filters = masks * (5 + classes)
        before = layers[i - 1] if i else Layer("net", {})
        require(
            before.kind == "convolutional" and before.options["filters"] == filters,
            *(path, sections[i - 1]),
            f"[convolutional] filters={filters} before [yolo] with {masks} masks and "
            f"{classes} classes, which is {masks} * (5 + {classes})",
            describe_layer(before),
        )
