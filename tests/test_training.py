"""The training loop: learning, its strategies, its failures."""

import io

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
