"""The training loop: what it learns, on several devices and workers, its errors."""

import io
import json
import os
import subprocess
import sys
import threading

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf
from PIL import Image, ImageDraw
from project import REPOSITORY, free_addresses

from superbai.labelled_image import Record
from yolov3_tf2.boxes import geometry
from yolov3_tf2.data import records
from yolov3_tf2.data.dataset import Batches, build_dataset
from yolov3_tf2.data.record_files import RecordFiles
from yolov3_tf2.data.unreadable import UnreadableImages
from yolov3_tf2.errors import InputError
from yolov3_tf2.network.model import build_model, layers_of
from yolov3_tf2.network.variants import VARIANTS
from yolov3_tf2.training import replicas
from yolov3_tf2.training.devices import set_precision
from yolov3_tf2.training.optimizer import build_optimizer
from yolov3_tf2.training.trainer import Trainer

TINY = VARIANTS["yolov3-tiny"]
NAMES = ["disc", "block"]
SIZE = 96


@pytest.fixture(scope="module")
def two_images(tmp_path_factory):
    """A TFRecord file of two images with a disc and a block each."""
    path = tmp_path_factory.mktemp("two") / "two.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for number, shift in enumerate((0, 12)):
            image = Image.new("RGB", (SIZE, SIZE), (220, 220, 220))
            canvas = ImageDraw.Draw(image)
            disc = (8 + shift, 10, 38 + shift, 40)
            block = (45, 50 + shift, 80, 80 + shift)
            canvas.ellipse(disc, fill=(200, 40, 40))
            canvas.rectangle(block, fill=(40, 40, 200))
            buffer = io.BytesIO()
            image.save(buffer, "PNG")
            record = Record(
                f"{number}", buffer.getvalue(), "png", SIZE, SIZE, [disc, block], [0, 1]
            )
            writer.write(records.serialize_example(record, NAMES))
    return path


CPU = "/cpu:0"


def build(steps=10, learning_rate=1e-3, num_classes=2, ema=0.0, **options):
    """Builds a trainer of a small random network, without pretrained layers."""
    keras.utils.set_random_seed(0)
    strategy = tf.distribute.OneDeviceStrategy(CPU)
    kind = options.pop("optimizer", "adamw")
    options = {"box_loss": "ciou", "clip_norm": 1000.0} | options
    with strategy.scope():
        model = build_model(TINY, num_classes)
        averaged = build_model(TINY, num_classes) if ema else model
        new = build_optimizer(
            kind, model.trainable_variables, learning_rate, steps, 5e-4, "new"
        )
        layers = [layer for layer in model.layers if layer.variables]
        trainer = Trainer(
            model, averaged, TINY, strategy, [(new, layers)], ema=ema, **options
        )
        trainer.start_average()
    return trainer


def batches(path, batch_size=2, names=NAMES, size=SIZE):
    return build_dataset(RecordFiles([path]), names, TINY, size, batch_size)


def repeated(batches, count):
    return Batches(
        lambda numbers: batches.build(numbers).repeat(count),
        batches.files,
        batches.unreadable,
    )


@pytest.mark.parametrize("box_loss", ["darknet", "ciou"])
def test_a_network_overfits_two_images(two_images, box_loss):
    trainer = build(steps=60, box_loss=box_loss)
    dataset = batches(two_images)
    first = trainer.train_epoch(dataset, [two_images])
    trainer.train_epoch(repeated(dataset, 58), [two_images])
    last = trainer.train_epoch(dataset, [two_images])
    assert last["loss"] < first["loss"] / 3
    assert last["unassigned"] == 0 and last["gradient_norm"] > 0
    results, evaluated = trainer.evaluate(dataset, NAMES, SIZE)
    assert results["AP50"] > 0.95
    parts = sum(v for k, v in results.items() if k.startswith("val_loss_"))
    assert results["val_loss"] == pytest.approx(parts, rel=1e-4)
    assert [item.number for item in evaluated] == [0, 1]
    np.testing.assert_allclose(evaluated[1].boxes_px[0], [20, 10, 50, 40], atol=1e-3)


def test_a_single_class_reaches_high_scores(two_images, tmp_path):
    path = one_class(two_images, tmp_path)
    trainer = build(steps=80, num_classes=1)
    dataset = batches(path, names=["disc"])
    trainer.train_epoch(repeated(dataset, 80), [path])
    _, evaluated = trainer.evaluate(dataset, ["disc"], SIZE)
    for item in evaluated:
        assert item.detections.scores[0] > 0.9
        overlap = geometry.iou(item.detections.boxes_px[0], item.boxes_px[0])
        assert float(overlap) > 0.7


def one_class(path, folder):
    """Writes a TFRecord file of the same images with the discs only."""
    target = folder / "discs.tfrecord"
    with tf.io.TFRecordWriter(str(target)) as writer:
        for number, row in enumerate(records.read_examples([path], [0, 1])):
            box = (row["boxes"].numpy()[0] * SIZE).tolist()
            record = Record(
                f"{number}", row["encoded"].numpy(), "png", SIZE, SIZE, [box], [0]
            )
            writer.write(records.serialize_example(record, ["disc"]))
    return target


BOXES = {
    "no boxes": ([], SIZE),
    "300 boxes": (
        [
            (x, y, x + 6 + x % 5, y + 5 + y % 7)
            for x in range(0, 80, 4)
            for y in range(0, 75, 5)
        ],
        SIZE,
    ),
    "two boxes in one cell": ([(40, 40, 60, 60), (41, 41, 61, 60)], SIZE),
    "on the edge, size 512": ([(86, 40, 96, 96), (0, 0, 3, 96)], 512),
}


@pytest.mark.slow
@pytest.mark.parametrize("box_loss", ["darknet", "ciou"])
@pytest.mark.parametrize("case", BOXES)
def test_unusual_images_train_with_finite_numbers(tmp_path, case, box_loss):
    drawn, size = BOXES[case]
    assert case != "300 boxes" or len(drawn) == 300
    path = tmp_path / "unusual.tfrecord"
    buffer = io.BytesIO()
    Image.effect_noise((SIZE, SIZE), 90).convert("RGB").save(buffer, "PNG")
    with tf.io.TFRecordWriter(str(path)) as writer:
        record = Record(
            "unusual", buffer.getvalue(), "png", SIZE, SIZE, drawn, [0] * len(drawn)
        )
        writer.write(records.serialize_example(record, NAMES))
    trainer = build(steps=20, box_loss=box_loss)
    dataset = batches(path, 1, size=size)
    for _ in range(4):
        results = trainer.train_epoch(repeated(dataset, 5), [path])
        assert np.isfinite(list(results.values())).all()
        assert results["gradient_norm"] > 0
    assert all(np.isfinite(v.numpy()).all() for v in trainer.model.variables)


def test_an_image_that_cannot_be_decoded_does_not_count(two_images, tmp_path):
    path = tmp_path / "three.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        rows = [row.numpy() for row in tf.data.TFRecordDataset(str(two_images))]
        record = Record("bad", b"no image", "png", SIZE, SIZE, [(5, 5, 50, 50)], [0])
        for row in (rows[0], records.serialize_example(record, NAMES), rows[1]):
            writer.write(row)
    trainer = build(steps=40)
    trainer.train_epoch(repeated(batches(two_images), 30), [two_images])
    unreadable = UnreadableImages(NAMES, 1)
    damaged = build_dataset(
        *(RecordFiles([path]), NAMES, TINY, SIZE, 2), unreadable=unreadable
    )
    expected, (first, second) = trainer.evaluate(batches(two_images), NAMES, SIZE)
    results, (ours, other) = trainer.evaluate(damaged, NAMES, SIZE)
    assert results.pop("images_left_out") == 1
    assert results == pytest.approx(expected, rel=1e-4)
    assert (ours.number, other.number) == (0, 2)
    np.testing.assert_array_equal(other.boxes_px, second.boxes_px)
    np.testing.assert_array_equal(ours.boxes_px, first.boxes_px)
    losses = trainer.train_epoch(damaged, [path])
    assert np.isfinite(list(losses.values())).all()
    nothing = tmp_path / "nothing.tfrecord"
    with tf.io.TFRecordWriter(str(nothing)) as writer:
        writer.write(records.serialize_example(record, NAMES))
    nothing = build_dataset(
        *(RecordFiles([nothing]), NAMES, TINY, SIZE, 1),
        unreadable=UnreadableImages(NAMES, 1),
    )
    with pytest.raises(InputError, match="none of the evaluated images can be decoded"):
        trainer.evaluate(nothing, NAMES, SIZE)
    with pytest.raises(InputError, match="none of the training images can be"):
        trainer.train_epoch(nothing, [path])


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_the_average_follows_the_weights(two_images, optimizer):
    trainer = build(ema=0.9, optimizer=optimizer)
    start = [v.numpy() for v in trainer.model.variables]
    for ours, theirs in zip(start, trainer.averaged.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    trainer.train_epoch(batches(two_images), [two_images])
    decay = 2 / 11  # (1 + step) / (10 + step) after one step, which is below 0.9
    for first, average, now in zip(
        start, trainer.averaged.variables, trainer.model.variables, strict=True
    ):
        expected = decay * first + (1 - decay) * now.numpy()
        np.testing.assert_allclose(average, expected, rtol=1e-4, atol=1e-6)


def test_the_average_is_what_is_evaluated(two_images):
    trainer = build(ema=0.9)
    for variable in trainer.model.variables:
        variable.assign(variable * np.nan)
    results, _ = trainer.evaluate(batches(two_images), NAMES, SIZE)
    assert np.isfinite(results["val_loss"])


def test_a_loss_that_is_not_finite_is_an_error(two_images):
    trainer = build()
    trainer.model.variables[0].assign(trainer.model.variables[0] * np.nan)
    words = "the loss is nan at step 1, learning rate .*lower --learning_rate.*: 0, 1"
    with pytest.raises(InputError, match=words):
        trainer.train_epoch(batches(two_images), [two_images])


def test_gradients_that_overflow_are_an_error(two_images):
    trainer = build()
    # A finite loss, whose square overflows in the norm of the gradients.
    (output,) = [v for v in trainer.model.variables if v.path == "output_09_conv/bias"]
    output.assign(output + 3e38)
    with pytest.raises(InputError, match="step 1"):
        trainer.train_epoch(batches(two_images), [two_images])


def test_a_batch_is_copied_to_the_devices_while_they_compute(two_images, monkeypatch):
    copied, steps = threading.Semaphore(0), []
    copy_to_devices = replicas.copy_to_devices

    def copy(strategy, batch):
        parts = copy_to_devices(strategy, batch)
        copied.release()
        return parts

    def step(parts):
        steps.append(parts)
        if len(steps) == 1:
            # Its own copy, and that of the next batch.
            assert copied.acquire(timeout=30) and copied.acquire(timeout=30)

    monkeypatch.setattr(replicas, "copy_to_devices", copy)
    strategy = tf.distribute.OneDeviceStrategy(CPU)
    for _ in replicas.run_steps(strategy, step, batches(two_images, batch_size=1)):
        pass
    assert len(steps) == 2


def test_a_step_returns_before_the_next_batch_fails(two_images, monkeypatch):
    def iterate(dataset):
        yield next(iter(dataset.dataset))
        raise InputError("a record cannot be used")

    monkeypatch.setattr(replicas, "iterate", iterate)
    strategy, results = tf.distribute.OneDeviceStrategy(CPU), []
    with pytest.raises(InputError, match="a record"):
        for _, result in replicas.run_steps(strategy, len, batches(two_images)):
            results.append(result)
    assert results == [1]


def test_frozen_layers_are_not_updated_until_they_thaw(two_images):
    trainer = build()
    trainer.freeze(["backbone"])
    before = {v.path: v.numpy() for v in trainer.model.variables}

    def changed():
        now = trainer.model.variables
        return {v.path for v in now if (v.numpy() != before[v.path]).any()}

    trainer.train_epoch(batches(two_images), [two_images])
    # Nor are the statistics of BatchNorm.
    assert not any(path.startswith("backbone") for path in changed())
    assert any(path.startswith("neck") for path in changed())
    trainer.evaluate(batches(two_images), NAMES, SIZE)
    evaluation = trainer._function(trainer._eval_step, batches(two_images))
    own = {id(variable) for variable in trainer.model.variables}
    folded = [v for v in trainer._trained.variables if id(v) not in own]
    assert len(folded) == 14 and all(sizes_of(folded))
    trainer.thaw()
    # They need as much memory as the layers themselves, and a graph may keep them.
    assert not any(sizes_of(folded)) and all(sizes_of(trainer.model.variables))
    trainer.train_epoch(batches(two_images), [two_images])
    assert len(changed()) == len(before)
    # It has not changed, and tracing it again takes seconds.
    again = trainer._function(trainer._eval_step, batches(two_images))
    assert again is evaluation


def sizes_of(variables):
    """Returns how many numbers are in the memory of each variable."""
    return [
        tf.size(tf.raw_ops.ReadVariableOp(resource=v.value.handle, dtype=v.value.dtype))
        for v in variables
    ]


def test_frozen_layers_are_folded_and_the_others_learn_the_same(two_images):
    results = []
    for fold in (True, False):
        trainer = build(optimizer="sgd", ema=0.5)
        # Statistics as in a checkpoint, which folding must use.
        reference.calibrate(
            trainer.model, np.random.default_rng(1).random((2, 96, 96, 3))
        )
        trainer.start_average()
        if fold:
            trainer.freeze(["backbone"])
            names = {layer.name for layer in trainer._trained.layers}
            assert "neck_07_bn" in names and "backbone_00_bn" not in names
        for layer in layers_of(trainer.model, "backbone"):
            layer.trainable = False
        epoch = trainer.train_epoch(batches(two_images), [two_images])
        variables = {v.path: v.numpy() for v in trainer.averaged.variables}
        results.append((epoch["loss"], variables))
    (loss, ours), (expected_loss, theirs) = results
    assert loss == pytest.approx(expected_loss, rel=1e-4)
    for path, value in theirs.items():
        np.testing.assert_allclose(ours[path], value, rtol=1e-3, atol=1e-5)


def test_a_network_that_diverges_in_its_last_step_is_an_error(two_images):
    trainer = build()
    variances = [v for v in trainer.model.variables if v.name == "moving_variance"]
    variances[0].assign(variances[0] * np.nan)  # Training does not use them.
    with pytest.raises(InputError, match="the loss on the evaluated images is nan"):
        trainer.evaluate(batches(two_images), NAMES, SIZE)


def test_an_overflow_in_float16_halves_the_scale_and_skips_the_step(two_images):
    before = keras.config.dtype_policy()
    set_precision("float16")
    try:
        trainer = build()
        trainer.loss_scale.scale.assign(2.0**24)
        weights = trainer.model.trainable_variables[0].numpy()
        results = trainer.train_epoch(batches(two_images), [two_images])
        assert np.isfinite(results["loss"])
        assert float(trainer.loss_scale.scale) == 2.0**23
        # Except for weight decay, 5e-4 times the learning rate.
        now = trainer.model.trainable_variables[0]
        np.testing.assert_allclose(weights, now, rtol=2e-6)
        trainer.loss_scale.scale.assign(256.0)
        trainer.train_epoch(batches(two_images), [two_images])
        assert float(trainer.loss_scale.scale) == 256
        assert int(trainer.loss_scale.good_steps) == 1
        now = trainer.model.trainable_variables[0].numpy()
        assert np.abs(weights - now).max() > 1e-4
        # Losses, boxes and weights are float32.
        logits = trainer.model(np.zeros((1, 64, 64, 3), "f"))
        assert {x.dtype for x in logits} == {tf.float32}
        assert trainer.model.layers[5].compute_dtype == "float16"
    finally:
        keras.config.set_dtype_policy(before)


@pytest.mark.slow
@pytest.mark.parametrize("norms, tolerance", [("frozen", 1e-4), ("live", 0.02)])
def test_two_devices_and_two_workers_learn_like_one(
    two_images, tmp_path, norms, tolerance
):
    # Nine images in batches of 4 on two replicas: the last batch has one image.
    rows = [row.numpy() for row in tf.data.TFRecordDataset(str(two_images))]
    path = tmp_path / "nine.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for number in range(9):
            example = tf.train.Example.FromString(rows[number % 2])
            name = example.features.feature["image/source_id"].bytes_list
            name.value[0] = f"image {number}".encode()
            writer.write(example.SerializeToString())
    addresses = free_addresses(2)
    one, two, first, second = (
        start_replicas(path, *arguments)
        for arguments in (
            ("1", norms),
            ("2", norms),
            ("1", norms, "0", *addresses),
            ("1", norms, "1", *addresses),
        )
    )
    one, two, first, second = map(printed_rows, (one, two, first, second))
    assert len(one) == 3
    # Every worker has the results of all.
    assert first == second
    # The error names the images of all workers in the step that fails.
    for printed, numbers in ((one, "0123"), (two, "0123"), (first, "0145")):
        names = ", ".join(f"image {number}" for number in numbers)
        assert printed.pop()["error"].endswith(f"of this step: {names}.")
    for others in (two, first):
        for ours, theirs in zip(one, others, strict=True):
            names = ours if norms == "frozen" else ("loss", "val_loss")
            for name in names:
                close = pytest.approx(theirs[name], rel=tolerance, abs=tolerance)
                assert ours[name] == close, name


def start_replicas(*arguments):
    script = REPOSITORY / "tests" / "helpers" / "replicas.py"
    return subprocess.Popen(
        [sys.executable, str(script), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def printed_rows(process):
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    return [json.loads(line) for line in stdout.splitlines() if line.startswith("{")]
