"""The optimizers, their schedule and weight decay, the loss scale, the precision."""

import inspect
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from yolov3_tf2.errors import InputError
from yolov3_tf2.training import devices, optimizer
from yolov3_tf2.training.gradients import LossScale, clip_gradients


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
def test_only_kernels_decay(kind):
    numbers = variables()
    built = optimizer.build_optimizer(kind, numbers, 0.1, 10, 0.5, "new")
    built.apply_gradients([(tf.zeros((2, 2)), v) for v in numbers])
    values = [float(v.numpy()[0, 0]) for v in numbers]
    assert values == pytest.approx([1 - 0.1 * 0.5, 1, 1, 1])


def test_adamw_equals_that_of_keras():
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


@pytest.mark.parametrize(
    "kind, hook",
    [
        *(("sgd", hook) for hook in optimizer.SGD._hooks),
        *(("adamw", hook) for hook in optimizer.AdamW._hooks),
        *(("adamw", hook) for hook in optimizer.AdamW._hook_variables),
    ],
)
def test_a_keras_without_a_private_name_is_refused(monkeypatch, kind, hook):
    base = {"sgd": keras.optimizers.SGD, "adamw": keras.optimizers.AdamW}[kind]
    owners = [owner for owner in base.__mro__ if hook in vars(owner)]
    for owner in owners:
        monkeypatch.delattr(owner, hook)
    if not owners:
        # An attribute that `build` sets.
        build = base.build

        def build_without(self, variables):
            build(self, variables)
            delattr(self, hook)

        monkeypatch.setattr(base, "build", build_without)
    words = f"expected version 3.15, got {keras.__version__}, whose optimizers lack"
    with pytest.raises(InputError, match=f"^keras: {words} {hook},"):
        optimizer.build_optimizer(kind, variables(), 0.1, 10, 0.0, "new")


def test_all_private_names_are_checked():
    """The names that the source of the optimizers overrides or reads."""
    source = inspect.getsource(optimizer._Summed) + inspect.getsource(optimizer.AdamW)
    names = set(re.findall(r"(?:def |self\.)(_[a-z]\w+)", source))
    checked = {*optimizer.AdamW._hooks, *optimizer.AdamW._hook_variables}
    assert names - {"_hooks", "_hook_variables"} == checked


def test_an_unknown_optimizer_is_refused():
    words = "optimizer: expected one of adamw, sgd, got 'adam'"
    with pytest.raises(ValueError, match=words):
        optimizer.build_optimizer("adam", variables(), 0.1, 10, 0.0, "new")
    with pytest.raises(ValueError, match=words):
        optimizer.rate_factor("adam", 2)


def test_the_learning_rate_grows_with_the_replicas():
    assert optimizer.rate_factor("sgd", 4) == 4
    assert optimizer.rate_factor("adamw", 4) == 2


def test_sgd_has_nesterov_momentum():
    (kernel, *_) = numbers = variables()
    built = optimizer.build_optimizer("sgd", numbers[:1], 0.1, 10, 0.0, "new")
    built.apply_gradients([(tf.ones((2, 2)), kernel)])
    # velocity = -0.1, and the step looks ahead: 0.9 * -0.1 - 0.1.
    assert float(kernel.numpy()[0, 0]) == pytest.approx(1 - 0.19)


def test_gradients_are_clipped_to_a_global_norm():
    gradients, norm = clip_gradients([tf.constant([3.0]), tf.constant([4.0])], 1.0)
    assert float(norm) == pytest.approx(5)
    np.testing.assert_allclose(tf.concat(gradients, 0), [0.6, 0.8], rtol=1e-6)
    gradients, norm = clip_gradients([tf.constant([3.0]), tf.constant([4.0])], 9.0)
    np.testing.assert_array_equal(tf.concat(gradients, 0), [3.0, 4.0])
    scale = LossScale(start=8.0)
    gradients, norm = clip_gradients([tf.constant([np.inf, 8.0])], 9.0, scale)
    assert not np.isfinite(norm)
    np.testing.assert_array_equal(gradients[0], [0.0, 0.0])
    gradients, norm = clip_gradients([tf.constant([24.0, 32.0])], 9.0, scale)
    assert float(norm) == pytest.approx(5)
    np.testing.assert_allclose(gradients[0], [3.0, 4.0], rtol=1e-6)


def test_the_loss_scale_grows_without_overflows():
    scale = LossScale(start=8.0)
    scale.good_steps.assign(scale.GROWTH_STEPS - 1)
    scale.update(tf.constant(True))
    assert float(scale.scale) == 16 and int(scale.good_steps) == 0
    scale.update(tf.constant(True))
    assert float(scale.scale) == 16 and int(scale.good_steps) == 1
    for _ in range(9):
        scale.update(tf.constant(False))
    assert float(scale.scale) == 1 and int(scale.good_steps) == 0


def test_an_unknown_precision_is_refused():
    words = "precision: expected one of auto, float32, bfloat16, float16, got 'int8'"
    with pytest.raises(ValueError, match=words):
        devices.choose_precision("int8")


@pytest.mark.parametrize("gpus", [[], ["gpu"]])
def test_a_missing_gpu_is_warned_of(monkeypatch, caplog, gpus):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: gpus)
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    with caplog.at_level("WARNING", logger="absl"):
        assert devices.describe_devices(strategy) == "1 CPU"
    warnings = [] if gpus else ["no GPU found, training on CPU"]
    assert caplog.messages == warnings


def test_the_precision_of_this_machine(monkeypatch):
    assert devices.choose_precision("float16") == "float16"
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    for has, expected in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(devices, "_has_bfloat16_instructions", lambda has=has: has)
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
