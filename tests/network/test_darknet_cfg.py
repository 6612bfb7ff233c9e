"""Darknet's cfg: read as darknet reads it, compared with the networks, refused."""

import re

import darknet_cfg as texts
import keras
import numpy as np
import pytest
import reference

from yolov3_tf2.boxes.decoding import decode_boxes
from yolov3_tf2.boxes.geometry import xyxy_to_xywh
from yolov3_tf2.errors import InputError
from yolov3_tf2.network import darknet, darknet_layers
from yolov3_tf2.network import model as network
from yolov3_tf2.network.darknet_cfg import read_cfg
from yolov3_tf2.network.variants import VARIANTS

TINY = VARIANTS["yolov3-tiny"]
OWN_ANCHORS = (8, 9.5, 30, 12, 22, 41, 60, 33, 50, 90, 120, 77)
# As AlexeyAB's yolov3-tiny has them, and in another order than usual.
OWN_MASKS = ((3, 5, 4), (0, 1, 2))
OWN_SCALES = (((60, 33), (120, 77), (50, 90)), ((8, 9.5), (30, 12), (22, 41)))
# Each network, and another one.
RING = [("yolov3", "yolov3-spp"), ("yolov3-spp", "yolov3"), ("yolov3-tiny", "yolov3")]


@pytest.fixture
def write(tmp_path):
    """Writes a cfg and returns its path."""

    def write_text(text):
        path = tmp_path / "own.cfg"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write_text


def tiny(num_classes=2, **options):
    return texts.yolov3_tiny(416, num_classes, **options)


@pytest.mark.parametrize("name", VARIANTS)
def test_the_networks_have_the_layers_of_darknet(write, name):
    path = write(texts.CFGS[name](608, 7))
    cfg = read_cfg(path)
    assert (cfg.num_classes, cfg.width, cfg.height) == (7, 608, 608)
    assert darknet_layers.match_cfg(path, cfg, VARIANTS[name]) == VARIANTS[name]


@pytest.mark.parametrize("name, other", RING)
def test_the_network_that_it_fits_is_named(write, name, other):
    path = write(texts.CFGS[name](608, 7))
    with pytest.raises(InputError, match=f"use --model={name}\\.$") as error:
        darknet_layers.match_cfg(path, read_cfg(path), VARIANTS[other])
    assert f"expected the layers of {other}, got" in str(error.value)


def test_the_published_cfg(shared):
    path = shared / "weights" / "yolov3-tiny.cfg"
    cfg = read_cfg(path)
    assert (cfg.num_classes, cfg.width, cfg.height) == (80, TINY.size, TINY.size)
    variant = darknet_layers.match_cfg(path, cfg, TINY)
    assert variant.anchors == (TINY.anchors[0], ((10, 14), (23, 27), (37, 58)))


def test_written_and_read_again(tmp_path):
    for variant in VARIANTS.values():
        model = network.build_model(variant, 3, random=False)
        darknet_layers.write_cfg(tmp_path / "a.cfg", model, variant, 320)
        cfg = read_cfg(tmp_path / "a.cfg")
        assert cfg.layers == darknet_layers.list_layers(model)
        assert (cfg.anchors, cfg.width) == (variant.anchors, 320)


def test_anchors_and_masks(write):
    path = write(tiny(anchors=OWN_ANCHORS, masks=OWN_MASKS))
    variant = darknet_layers.match_cfg(path, read_cfg(path), TINY)
    assert variant.anchors == OWN_SCALES
    assert (variant.name, variant.strides) == (TINY.name, TINY.strides)


@pytest.mark.parametrize(
    "name, options, scales",
    [
        ("yolov3-tiny", {"anchors": OWN_ANCHORS, "masks": OWN_MASKS}, OWN_SCALES),
        pytest.param(
            "yolov3",
            {"masks": ((8, 0, 7), (1, 2, 6), (5, 3, 4))},
            None,
            marks=pytest.mark.slow,
        ),
    ],
)
def test_boxes_equal_opencv_with_own_anchors(write, tmp_path, name, options, scales):
    keras.utils.set_random_seed(1)
    size = 160
    images = np.random.default_rng(0).random((2, size, size, 3), "float32")
    path = write(texts.CFGS[name](size, 2, **options))
    variant = darknet_layers.match_cfg(path, read_cfg(path), VARIANTS[name])
    assert scales is None or variant.anchors == scales
    model = network.build_model(variant, 2)
    reference.calibrate(model, images)
    darknet.write_weights(tmp_path / "own.weights", model)
    opencv = reference.OpenCvDarknet(name, size, 2, tmp_path / "own.weights", **options)
    logits = model(images[:1], training=False)
    for scale, expected in enumerate(opencv.boxes(images[:1])):
        ours = decode_boxes(logits[scale][..., :4], variant, scale)
        ours = np.reshape(xyxy_to_xywh(ours), (-1, 4))
        np.testing.assert_allclose(ours, expected, atol=1e-4, rtol=1e-3)
        published = decode_boxes(logits[scale][..., :4], VARIANTS[name], scale)
        published = np.reshape(xyxy_to_xywh(published), (-1, 4))
        assert np.abs(published - expected).max() > 0.01


def test_a_network_for_other_anchors_has_the_same_boxes(write, tmp_path):
    """A box is anchor * exp(t): log(old / new) in the bias makes up for new anchors."""
    keras.utils.set_random_seed(0)
    images = np.random.default_rng(0).random((1, 96, 96, 3), "float32")
    original = network.build_model(TINY, 2)
    reference.calibrate(original, images)
    expected = [
        decode_boxes(logits[..., :4], TINY, scale)
        for scale, logits in enumerate(original(images, training=False))
    ]
    outputs = [conv for conv, norm in network.convolutions(original) if norm is None]
    for conv, old, new in zip(outputs, TINY.anchors, OWN_SCALES, strict=True):
        bias = conv.bias.numpy().reshape(3, 7)
        bias[:, 2:4] += np.log(np.array(old) / np.array(new))
        conv.bias.assign(bias.reshape(-1))
    darknet.write_weights(tmp_path / "own.weights", original)

    path = write(tiny(anchors=OWN_ANCHORS, masks=OWN_MASKS))
    variant = darknet_layers.match_cfg(path, read_cfg(path), TINY)
    model = network.build_model(variant, 2, random=False)
    darknet.load_weights(tmp_path / "own.weights", model, variant, 2)
    for scale, logits in enumerate(model(images, training=False)):
        boxes = decode_boxes(logits[..., :4], variant, scale)
        np.testing.assert_allclose(boxes, expected[scale], atol=1e-4)
        wrong = decode_boxes(logits[..., :4], TINY, scale)
        assert np.abs(wrong - expected[scale]).max() > 0.05


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "\ufeff" + text,
        lambda text: text.replace("=", " =\t").replace("mask", " mask"),
        lambda text: "# own\n;\n" + text.replace("\n[yolo]", "\n  # 注释\n[ yolo ]"),
        lambda text: (
            text.replace("[net]", "[network]").replace("[conv", "[conv") + "\n"
        ),
        lambda text: text.replace("[convolutional]", "[conv]").replace(
            "[maxp", "[maxp"
        ),
        lambda text: text.replace("classes=2", "classes=2 # one, two"),
        # The first of two counts, as in darknet.
        lambda text: text.replace("classes=2", "classes=2\nclasses=3"),
        lambda text: text.replace("num=6", "num=6,").replace("319", "319,"),
        # Padding in pixels; of kernels of one pixel there is none.
        lambda text: text.replace("size=3\nstride=1\npad=1", "size=3\npadding=1"),
        lambda text: text.replace("size=1\nstride=1\npad=1", "size=1\npad=0"),
        lambda text: text.replace("[net]", "[net]\nbatch=64\nletter_box=1\nadam"),
        lambda text: text.replace("thresh=0.0001", "iou_loss=giou\nrandom=0"),
    ],
)
def test_spellings_that_mean_the_same(write, change):
    assert change(tiny()) != tiny()
    path = write(change(tiny()))
    assert darknet_layers.match_cfg(path, read_cfg(path), TINY) == TINY


def test_comments_of_any_encoding(write):
    path = write("# 작은 그물\n".encode("cp949") + tiny().encode())
    assert read_cfg(path).num_classes == 2


def replace_last(text, old, new):
    head, found, tail = text.rpartition(old)
    assert found
    return head + new + tail


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda t: "<!DOCTYPE html>\n<html>\n", r"begins with \[net\], got '<!DOCTYPE"),
        (lambda t: "", r"begins with \[net\], got ''"),
        (lambda t: t.replace("[net]", "[convolutional]"), r"begins with \[net\]"),
        (lambda t: t.replace("width=416", ""), "width=0 height=416"),
        (lambda t: t.replace("416", "400"), "multiples of 32, got width=400"),
        (lambda t: t.replace("channels=3", "channels=1"), "channels=3.*got 1"),
        (
            lambda t: t.replace("[yolo]", "[region]"),
            r"\[yolo\].*got only .*region",
        ),
        (lambda t: t.replace("mask=3,4,5", "mask=3,4"), "3 anchors in mask=.*mask=3,4"),
        (lambda t: t.replace("mask=1,2,3", ""), r"3 anchors in mask=.*\(none\)"),
        (
            lambda t: t.replace("mask=1,2,3", "mask=4,5,6"),
            "of 0 to 5.*mask=4,5,6",
        ),
        (lambda t: t.replace("num=6", "num=9"), "9 widths and heights.*got 12 numbers"),
        (lambda t: t.replace("10,14", "-10,14"), "6 widths and heights above 0"),
        (lambda t: t.replace("classes=2", "classes=two"), "number in classes=.*'two'"),
        (lambda t: t.replace("classes=2", "classes=,"), "number in classes=.*','"),
        (
            lambda t: t.replace("classes=2", "classes=" + "9" * 400),
            "number in classes=",
        ),
        (lambda t: t.replace("10,14", "10 14"), "6 widths and heights.*got 11 numbers"),
        (
            lambda t: t.replace("classes=2", "classes=4"),
            r"filters=27 before \[yolo\] with 3 masks and 4 classes.*filters=21",
        ),
        (
            lambda t: replace_last(t, "classes=2", "classes=3"),
            "same classes= from 1 to 10,000.*got classes=3",
        ),
        (lambda t: t.replace("layers=-4", "layers=-44"), "layers= of earlier layers"),
        (lambda t: t.replace("layers=-1,8", "layers=-1,99"), "earlier.*=-1,99"),
    ],
)
def test_what_contradicts_itself_is_refused(write, change, message):
    assert change(tiny()) != tiny()
    path = write(change(tiny()))
    with pytest.raises(InputError, match=message) as error:
        read_cfg(path)
    assert str(error.value).startswith(str(path))


@pytest.mark.parametrize(
    "change, message",
    [
        # Darknet's layers are numbered from 0, after [net].
        (
            lambda t: t.replace("filters=64", "filters=48"),
            r"layer 4 \(line 30\) differs from yolov3-tiny: expected \[convolutional\] "
            r"filters=64, got \[convolutional\] filters=48;",
        ),
        (
            lambda t: t.replace("activation=leaky", "activation=mish"),
            r"layer 0 .* activation=leaky, got \[convolutional\] activation=mish",
        ),
        (lambda t: t.replace("size=2\nstride=1", "size=2\nstride=2"), r"layer 11 .*"),
        (
            lambda t: replace_last(t, "batch_normalize=1", "batch_normalize=0"),
            r"layer 21 .*batch_normalize=1, got \[convolutional\]",
        ),
        (lambda t: t.replace("layers=-1,8", "layers=-1,6"), "=19,8, got.*=19,6"),
        (
            lambda t: t.replace("[upsample]", "[reorg3d]"),
            r"\[upsample\], got \[reorg",
        ),
        (
            lambda t: replace_last(t, "num=6", "num=6\nscale_x_y=1.05"),
            r"layer 23 .*\[yolo\], got \[yolo\] scale_x_y=1.05",
        ),
        (lambda t: t + "new_coords=1\n", r"layer 23 .*got \[yolo\] new_coords=1"),
        (
            lambda t: t + "\n[route]\nlayers=-1\n",
            r"layer 24 .* no layer, got \[route\]",
        ),
        (
            lambda t: t.partition("\n[route]")[0],
            r"layer 17 differs .* expected \[route\] layers=13, got no layer",
        ),
        (lambda t: t.replace("pad=1", "pad=0"), r"layer 0 .* padding=1, got"),
        (
            lambda t: t.replace("filters=1024", "filters=1024\ngroups=2"),
            r"layer 12 .*\[convolutional\], got \[convolutional\] groups=2",
        ),
    ],
)
def test_the_first_layer_that_differs_is_named(write, change, message):
    assert change(tiny()) != tiny()
    path = write(change(tiny()))
    with pytest.raises(InputError, match=message) as error:
        darknet_layers.match_cfg(path, read_cfg(path), TINY)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_the_difference_is_to_the_nearest_network(write):
    """A changed yolov3 is not compared with yolov3-tiny, whatever was asked for."""
    text = replace_last(texts.yolov3(416, 2), "filters=128", "filters=130")
    path = write(text)
    with pytest.raises(
        InputError, match=r"layer 10\d .*from yolov3:.*got.*filters=130"
    ):
        darknet_layers.match_cfg(path, read_cfg(path), TINY)


def test_any_text_is_refused_by_one_line(write):
    chance = np.random.default_rng(0)
    lines = tiny().splitlines()
    for _ in range(300):
        kept = [line for line in lines if chance.random() < 0.99]
        for _ in range(chance.integers(0, 3)):
            i = chance.integers(len(kept))
            kept[i] = re.sub(r"\d+", lambda m: str(chance.integers(-2, 99)), kept[i])
        try:
            read_cfg(write("\n".join(kept)))
        except InputError as error:
            assert "\n" not in str(error)
