"""Trains on one or more replicas and prints what came out; run as a program.

python replicas.py RECORDS DEVICES frozen|live [RANK ADDRESS ...]

DEVICES logical devices, or as many workers as there are addresses. `frozen` keeps the
statistics of BatchNorm, whose rounding Adam makes large.
"""

import json
import sys
from pathlib import Path

import keras
import tensorflow as tf

from yolov3_tf2 import grid, training
from yolov3_tf2.dataset import build_dataset
from yolov3_tf2.model import build_model
from yolov3_tf2.optimizer import build_optimizer
from yolov3_tf2.record_files import WHOLE, Share

TINY = grid.VARIANTS["yolov3-tiny"]
NAMES = ["disc", "block"]
SIZE, BATCH = 96, 4


def main():
    path, devices = Path(sys.argv[1]), int(sys.argv[2])
    addresses, share = sys.argv[5:], WHOLE
    if addresses:
        share = Share(int(sys.argv[4]), len(addresses))
        strategy = training.build_strategy(addresses, share.index)
    elif devices > 1:
        cpu = tf.config.list_physical_devices("CPU")[0]
        logical = [tf.config.LogicalDeviceConfiguration()] * devices
        tf.config.set_logical_device_configuration(cpu, logical)
        strategy = tf.distribute.MirroredStrategy([f"/cpu:{i}" for i in range(devices)])
    else:
        strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = build_model(TINY, len(NAMES))
        for layer in model.layers:
            is_norm = isinstance(layer, keras.layers.BatchNormalization)
            layer.trainable = not (is_norm and sys.argv[3] == "frozen")
        averaged = build_model(TINY, len(NAMES))
        new = build_optimizer("adamw", model.trainable_variables, 1e-3, 6, 5e-4, "new")
        trainer = training.Trainer(
            model,
            averaged,
            TINY,
            strategy,
            [(new, [layer for layer in model.layers if layer.variables])],
            box_loss="darknet",
            ema=0.9,
            clip_norm=1000.0,
        )
        trainer.start_average()
    if share.index:  # The first worker's numbers replace these.
        model.trainable_variables[0].assign(model.trainable_variables[0] * 2)
    trainer.share_state()
    # Always filled, so that the statistics of BatchNorm are of the same pictures.
    dataset = build_dataset(
        [path], NAMES, TINY, SIZE, BATCH // share.count, True, share=share
    )
    for _ in range(2):
        results = trainer.train_epoch(dataset, [path])
        results.pop("images_per_second")
        results |= trainer.evaluate(dataset, NAMES, SIZE)[0]
        print(json.dumps({k: float(v) for k, v in results.items()}))


if __name__ == "__main__":
    main()
