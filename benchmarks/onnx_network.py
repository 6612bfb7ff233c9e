"""Converts a folded network to ONNX and runs it in ONNX Runtime."""

import keras
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper


def build_session(model, size):
    """Builds an `onnxruntime.InferenceSession` of a folded network.

    Args:
        model: the result of `folding.fold_model`.
        size: side of the network's input, pixels.

    Returns:
        A session from `images`, `[batch, 3, size, size]` float32, to the outputs of the
        last convolutions `[batch, anchors * depth, rows, cols]`, coarse scale first.
    """
    names, nodes, weights = {}, [], []

    def constant(name, value):
        weights.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def add(layer, kind, inputs, **attributes):
        nodes.append(helper.make_node(kind, inputs, [layer.name], **attributes))

    for layer in model.layers:
        if isinstance(layer, keras.layers.InputLayer):
            names[id(layer.output)] = "images"
            continue
        inputs = layer.input if isinstance(layer.input, list) else [layer.input]
        inputs = [names[id(tensor)] for tensor in inputs]
        names[id(layer.output)] = layer.name
        if isinstance(layer, keras.layers.Conv2D):
            kernel, bias = (np.asarray(w, "float32") for w in layer.get_weights())
            inputs += [
                constant(f"{layer.name}_kernel", kernel.transpose(3, 2, 0, 1)),
                constant(f"{layer.name}_bias", bias),
            ]
            same = {"auto_pad": "SAME_UPPER"} if layer.padding == "same" else {}
            add(layer, "Conv", inputs, strides=layer.strides, **same)
        elif isinstance(layer, keras.layers.LeakyReLU):
            add(layer, "LeakyRelu", inputs, alpha=0.1)
        elif isinstance(layer, keras.layers.ZeroPadding2D):
            (top, bottom), (left, right) = layer.padding
            pads = np.array([0, 0, top, left, 0, 0, bottom, right], "int64")
            add(layer, "Pad", [*inputs, constant(f"{layer.name}_pads", pads)])
        elif isinstance(layer, keras.layers.MaxPooling2D):
            add(
                layer,
                "MaxPool",
                inputs,
                kernel_shape=layer.pool_size,
                strides=layer.strides,
                auto_pad="SAME_UPPER",
            )
        elif isinstance(layer, keras.layers.UpSampling2D):
            scales = np.array([1, 1, *layer.size], "float32")
            scales = constant(f"{layer.name}_scales", scales)
            add(layer, "Resize", [*inputs, "", scales], mode="nearest")
        elif isinstance(layer, keras.layers.Concatenate):
            add(layer, "Concat", inputs, axis=1)
        elif isinstance(layer, keras.layers.Add):
            add(layer, "Add", inputs)
        else:  # `SplitAnchors`, which the outputs of the session do without.
            names[id(layer.output)] = inputs[0]

    def build_value_info(name, shape):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    outputs = [names[id(tensor)] for tensor in model.outputs]
    graph = helper.make_graph(
        nodes,
        model.name,
        [build_value_info("images", ["batch", 3, size, size])],
        [build_value_info(name, ["batch", None, None, None]) for name in outputs],
        weights,
    )
    onnx_model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    onnx_model.ir_version = 8
    onnx.checker.check_model(onnx_model)
    return onnxruntime.InferenceSession(
        onnx_model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
