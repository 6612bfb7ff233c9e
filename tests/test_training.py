"""The training loop: learning, its strategies, its failures."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageDraw

from yolov3_tf2 import grid, records, training
from yolov3_tf2.dataset import build_dataset
from yolov3_tf2.errors import InputError
from yolov3_tf2.model import build_model

TINY = grid.VARIANTS["yolov3-tiny"]
NAMES = ["disc", "block"]
SIZE = 96


@pytest.fixture(scope="module")
def two_pictures(tmp_path_factory):
    """A TFRecord file of two pictures with a disc and a block each."""
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
            record = records.Record(
                f"{number}", buffer.getvalue(), "png", SIZE, SIZE, [disc, block], [0, 1]
            )
            writer.write(records.serialize(record, NAMES))
    return path


def build(strategy, steps, learning_rate=1e-3):
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = build_model(TINY, len(NAMES))
        return training.Trainer(model, TINY, SIZE, strategy, learning_rate, steps)


def batches(strategy, path, batch_size=2):
    dataset = build_dataset([path], NAMES, TINY, SIZE, batch_size)
    return strategy.experimental_distribute_dataset(dataset)


def test_a_network_learns_two_pictures_by_heart(two_pictures):
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    trainer = build(strategy, steps=60)
    dataset = batches(strategy, two_pictures)
    first = trainer.train_epoch(dataset)
    for _ in range(59):
        last = trainer.train_epoch(dataset)
    assert last["loss"] < first["loss"] / 3
    assert last["lost"] == 0
    results = trainer.evaluate(dataset, NAMES)
    assert results["AP50"] > 0.95
    parts = sum(v for k, v in results.items() if k.startswith("val_loss_"))
    assert results["val_loss"] == pytest.approx(parts, rel=1e-4)


def test_the_learning_rate_rises_and_falls():
    trainer = build(tf.distribute.OneDeviceStrategy("/cpu:0"), steps=100)
    schedule = trainer.optimizer._learning_rate
    rates = [float(schedule(step)) for step in range(101)]
    assert rates[0] == pytest.approx(1e-4)
    assert max(rates) == pytest.approx(1e-3) == pytest.approx(rates[10])
    assert rates[100] == pytest.approx(1e-5)


def test_a_loss_that_is_not_finite_ends_the_training(two_pictures):
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    trainer = build(strategy, steps=10)
    trainer.model.variables[0].assign(trainer.model.variables[0] * np.nan)
    with pytest.raises(InputError, match="the loss is nan at step 1; lower --learning"):
        trainer.train_epoch(batches(strategy, two_pictures))


def test_frozen_layers_stay(two_pictures):
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = build_model(TINY, len(NAMES))
        for layer in model.layers:
            layer.trainable = layer.name.startswith("output")
        trainer = training.Trainer(model, TINY, SIZE, strategy, 1e-3, 10)
    before = {v.path: v.numpy() for v in model.variables}
    trainer.train_epoch(batches(strategy, two_pictures))
    moved = {v.path for v in model.variables if (v.numpy() != before[v.path]).any()}
    assert moved == {v.path for v in model.trainable_variables}
    assert all(path.startswith("output") for path in moved)


def test_a_network_that_broke_in_its_last_step_is_not_kept(two_pictures):
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    trainer = build(strategy, steps=10)
    dataset = batches(strategy, two_pictures)
    variances = [v for v in trainer.model.variables if v.name == "moving_variance"]
    variances[0].assign(variances[0] * np.nan)  # Training does not look at these.
    with pytest.raises(InputError, match="the loss on the test pictures is nan"):
        trainer.evaluate(dataset, NAMES)


@pytest.mark.slow
@pytest.mark.parametrize("norms, tolerance", [("frozen", 1e-4), ("live", 0.02)])
def test_two_devices_learn_as_one_does(two_pictures, tmp_path, norms, tolerance):
    # Nine pictures at a batch of 4 over two devices: the last batch has one.
    rows = list(tf.data.TFRecordDataset(str(two_pictures)))
    path = tmp_path / "nine.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for number in range(9):
            writer.write(rows[number % 2].numpy())
    script = Path(__file__).with_name("two_devices.py")
    lines = []
    for devices in (1, 2):
        process = subprocess.run(
            [sys.executable, str(script), str(path), str(devices), norms],
            env={**os.environ, "PYTHONPATH": str(script.parent.parent)},
            capture_output=True,
            text=True,
        )
        assert process.returncode == 0, process.stderr
        printed = process.stdout.splitlines()
        lines.append([json.loads(line) for line in printed if line.startswith("{")])
    one, two = lines
    assert len(one) == 2
    for ours, theirs in zip(one, two, strict=True):
        names = ours if norms == "frozen" else ("loss", "val_loss")
        for name in names:
            close = pytest.approx(theirs[name], rel=tolerance, abs=tolerance)
            assert ours[name] == close, name
