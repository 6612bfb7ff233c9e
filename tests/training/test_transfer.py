"""What a pretrained model must have, and how long its layers stay frozen."""

import pytest

from yolov3_tf2.errors import InputError
from yolov3_tf2.network import checkpoint
from yolov3_tf2.network.model import build_model
from yolov3_tf2.network.model_info import ModelInfo
from yolov3_tf2.network.variants import VARIANTS
from yolov3_tf2.training.transfer import (
    PRETRAINED_PARTS,
    are_few_images,
    build_transferred_model,
    count_frozen_epochs,
)

TINY = VARIANTS["yolov3-tiny"]


@pytest.mark.parametrize("transfer", PRETRAINED_PARTS)
def test_a_backbone_serves_as_a_backbone_only(tmp_path, transfer):
    info = ModelInfo(TINY, [], 416, parts=("backbone",))
    pretrained = build_model(TINY, 0)
    checkpoint.save_model(tmp_path, pretrained, info)
    info = checkpoint.read_model_info(tmp_path)
    if transfer in ("no_output", "heads"):
        message = f"^--transfer={transfer}: .* only backbone.* --transfer=darknet"
        with pytest.raises(InputError, match=message):
            build_transferred_model(info, ["a", "b"], tmp_path, transfer)
        return
    model, _ = build_transferred_model(info, ["a", "b"], tmp_path, transfer)
    equal = [
        bool((model.get_layer(layer.name).kernel.numpy() == layer.kernel.numpy()).all())
        for layer in pretrained.layers
        if layer.name.endswith("_conv") and not layer.name.startswith("output")
    ]
    assert equal == [transfer == "darknet"] * 7 + [False] * 4


@pytest.mark.parametrize(
    ("num_labelled", "num_classes", "all_pretrained", "few"),
    [
        (80, 5, True, True),  # 80 COCO photographs
        (40, 1, True, False),  # photographs of raccoons, named "cat"
        (160, 1, True, False),
        (59, 2, True, True),
        (60, 2, True, False),
        (1, 1, False, False),  # A new class has to be learned, whatever there is.
    ],
)
def test_few_images_of_pretrained_classes(
    caplog, num_labelled, num_classes, all_pretrained, few
):
    caplog.set_level("INFO")
    found = are_few_images(all_pretrained, num_labelled, num_classes)
    assert found == few
    if all_pretrained:
        decision = "fewer than 30: by default pretrained" if few else "enough to train"
        per_class = f"{num_labelled / num_classes:.3g} labelled training images"
        assert f"{per_class} per class are {decision}" in caplog.text


@pytest.mark.parametrize(
    ("freeze_epochs", "few", "expected"),
    [(-1, True, 15), (-1, False, 3), (0, True, 0), (7, False, 7)],
)
def test_the_number_of_frozen_epochs(freeze_epochs, few, expected):
    values = {"freeze_epochs": freeze_epochs, "epochs": 15}
    assert count_frozen_epochs(values, few) == expected
