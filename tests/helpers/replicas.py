"""A program that trains on one or more replicas and prints the results as JSON.

    python replicas.py RECORDS DEVICES frozen|live [RANK ADDRESS ...]

It uses DEVICES logical devices, or one worker per address. `frozen` freezes BatchNorm,
whose rounding differences Adam would amplify. The last line is the error after the
weights become NaN.
"""

import json
import os
import signal
import sys
from pathlib import Path

import keras
import tensorflow as tf

from yolov3_tf2.data.dataset import build_dataset
from yolov3_tf2.data.record_files import WHOLE, RecordFiles, Share
from yolov3_tf2.errors import InputError
from yolov3_tf2.network.model import build_model
from yolov3_tf2.network.variants import VARIANTS
from yolov3_tf2.training import devices, replicas
from yolov3_tf2.training.optimizer import build_optimizer
from yolov3_tf2.training.trainer import Trainer
from yolov3_tf2.training.workers import collective

TINY = VARIANTS["yolov3-tiny"]
NAMES = ["disc", "block"]
SIZE, BATCH = 96, 4


def main():
    reduced_types = record_all_reduce()
    path, num_devices = Path(sys.argv[1]), int(sys.argv[2])
    addresses, share = sys.argv[5:], WHOLE
    if addresses:
        share = Share(int(sys.argv[4]), len(addresses))
        strategy = build_and_check_signals(addresses, share.index)
    elif num_devices > 1:
        cpu = tf.config.list_physical_devices("CPU")[0]
        logical = [tf.config.LogicalDeviceConfiguration()] * num_devices
        tf.config.set_logical_device_configuration(cpu, logical)
        strategy = tf.distribute.MirroredStrategy(
            [f"/cpu:{i}" for i in range(num_devices)]
        )
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
        trainer = Trainer(
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
    if share.index:  # The weights of the first worker replace these.
        model.trainable_variables[0].assign(model.trainable_variables[0] * 2)
    good_steps = tf.Variable(7 - share.index)  # int32, as in `LossScale`.
    collective.broadcast(strategy, [good_steps])
    assert good_steps.dtype == tf.int32 and int(good_steps) == 7
    assert trainer.broadcast_state({"epoch": 1 - share.index}) == {"epoch": 1}
    # Always filled, so that BatchNorm sees the same images everywhere.
    dataset = build_dataset(
        RecordFiles([path], share), NAMES, TINY, SIZE, BATCH // share.count, True
    )
    parts = replicas.copy_to_devices(strategy, next(iter(dataset.dataset)))
    names = [part["images"].device for part in parts]
    assert names == list(strategy.extended.worker_devices), names
    for _ in range(2):
        results = trainer.train_epoch(dataset, [path])
        results.pop("images_per_second")
        results |= trainer.evaluate(dataset, NAMES, SIZE)[0]
        print(json.dumps({k: float(v) for k, v in results.items()}))
    trainer.model.variables[0].assign(trainer.model.variables[0] * float("nan"))
    try:
        trainer.train_epoch(dataset, [path])
    except InputError as error:
        print(json.dumps({"error": str(error)}))
    check_thawing_releases_memory(trainer, strategy)
    # TensorFlow cannot sum int32 on GPUs.
    assert reduced_types and tf.int32 not in reduced_types, reduced_types


def build_and_check_signals(addresses, rank):
    """Returns the strategy, after which Python still handles SIGTERM."""
    received = []
    signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    strategy = devices.build_strategy(addresses, rank)
    os.kill(os.getpid(), signal.SIGTERM)
    assert received == [signal.SIGTERM]
    return strategy


def check_thawing_releases_memory(trainer, strategy):
    """Checks that the folded weights on each device are released."""
    with strategy.scope():
        trainer.freeze(["backbone"])
    (kernel, _) = trainer._trained.get_layer("backbone_00_conv").variables
    parts = strategy.experimental_local_results(kernel.value)
    trainer.thaw()
    assert len(parts) == len(strategy.extended.worker_devices)
    for part in parts:
        value = tf.raw_ops.ReadVariableOp(resource=part.handle, dtype=part.dtype)
        assert tf.size(value) == 0


def record_all_reduce():
    """Returns a set that receives the types of all tensors that replicas sum."""
    types, all_reduce = set(), tf.distribute.ReplicaContext.all_reduce

    def recorded(self, operation, value, *arguments):
        types.update(tensor.dtype for tensor in tf.nest.flatten(value))
        return all_reduce(self, operation, value, *arguments)

    tf.distribute.ReplicaContext.all_reduce = recorded
    return types


if __name__ == "__main__":
    main()
