"""The learning rate's schedule, weight decay, the loss scale, the precision."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from yolov3_tf2.training import devices, optimizer


def variables():
    return [
        keras.Variable(np.ones((2, 2), "f"), name=name)
        for name in ("kernel", "bias", "gamma", "beta")
    ]


@pytest.mark.parametrize("steps, warmup", [(100, 10), (50_000, 1000), (5, 1)])
def test_the_learning_rate_rises_and_falls(steps, warmup):
    built = optimizer.build_optimizer("adamw", variables(), 1e-3, steps, 0.0, "new")
    schedule = tf.function(
        lambda: tf.map_fn(built._learning_rate, tf.range(steps + 1), tf.float32)
    )
    rates = schedule().numpy().tolist()
    assert rates[0] == pytest.approx(1e-3 / warmup)
    assert max(rates) == pytest.approx(1e-3) == pytest.approx(rates[warmup])
    assert rates[steps] == pytest.approx(1e-5, rel=1e-3)
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)


@pytest.mark.parametrize("kind", optimizer.OPTIMIZERS)
def test_kernels_alone_decay(kind):
    numbers = variables()
    built = optimizer.build_optimizer(kind, numbers, 0.1, 10, 0.5, "new")
    built.apply_gradients([(tf.zeros((2, 2)), v) for v in numbers])
    values = [float(v.numpy()[0, 0]) for v in numbers]
    assert values == pytest.approx([1 - 0.1 * 0.5, 1, 1, 1])


def test_adamw_is_that_of_keras():
    chance, results = np.random.default_rng(0), []
    gradients = [[chance.normal(size=(2, 2)) for _ in range(4)] for _ in range(5)]
    for kind in (optimizer.AdamW, keras.optimizers.AdamW):
        numbers = variables()
        built = kind(learning_rate=0.01, weight_decay=0.1)
        built.exclude_from_weight_decay(var_names=optimizer.NOT_DECAYED)
        built.build(numbers)
        for step in gradients:
            step = [tf.constant(gradient, tf.float32) for gradient in step]
            built.apply_gradients(zip(step, numbers, strict=True))
        results.append([v.numpy() for v in [*numbers, *built.variables]])
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)
    assert np.abs(results[0][0] - 1).min() > 1e-3


def test_sgd_is_nesterovs():
    (kernel, *_) = numbers = variables()
    built = optimizer.build_optimizer("sgd", numbers[:1], 0.1, 10, 0.0, "new")
    built.apply_gradients([(tf.ones((2, 2)), kernel)])
    # velocity = -0.1, and the step looks ahead: 0.9 * -0.1 - 0.1.
    assert float(kernel.numpy()[0, 0]) == pytest.approx(1 - 0.19)


def test_the_loss_scale_grows_when_all_is_well():
    scale = optimizer.LossScale(start=8.0)
    scale.good_steps.assign(scale.GROWTH_STEPS - 1)
    scale.update(tf.constant(True))
    assert float(scale.scale) == 16 and int(scale.good_steps) == 0
    scale.update(tf.constant(True))
    assert float(scale.scale) == 16 and int(scale.good_steps) == 1
    for _ in range(9):
        scale.update(tf.constant(False))
    assert float(scale.scale) == 1 and int(scale.good_steps) == 0


def test_the_precision_of_this_machine(monkeypatch):
    assert devices.choose_precision("float16") == "float16"
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    for has, expected in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(devices, "_multiplies_bfloat16", lambda has=has: has)
        assert devices.choose_precision("auto") == expected


@pytest.mark.parametrize(
    "capability, expected", [((7, 5), "float16"), ((6, 1), "float32")]
)
def test_the_precision_of_a_gpu(monkeypatch, capability, expected):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["gpu"])
    monkeypatch.setattr(
        tf.config.experimental,
        "get_device_details",
        lambda gpu: {"compute_capability": capability},
    )
    assert devices.choose_precision("auto") == expected
