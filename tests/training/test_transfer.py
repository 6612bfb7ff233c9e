"""What a pretrained model must have for each way to start from it."""

import pytest

from yolov3_tf2.errors import InputError
from yolov3_tf2.network import checkpoint
from yolov3_tf2.network.model import build_model
from yolov3_tf2.network.model_info import ModelInfo
from yolov3_tf2.network.variants import VARIANTS
from yolov3_tf2.training.transfer import PRETRAINED_PARTS, build_transferred_model

TINY = VARIANTS["yolov3-tiny"]


@pytest.mark.parametrize("transfer", PRETRAINED_PARTS)
def test_a_backbone_serves_as_a_backbone_only(tmp_path, transfer):
    info = ModelInfo(TINY, [], 416, parts=("backbone",))
    pretrained = build_model(TINY, 0)
    checkpoint.save_model(tmp_path, pretrained, info)
    info = checkpoint.read_model_info(tmp_path)
    if transfer in ("no_output", "heads"):
        message = f"^--transfer={transfer}: .* only the backbone.* --transfer=darknet"
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
