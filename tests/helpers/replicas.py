"""Trains on one or more replicas and prints what came out; run as a program.

The last line is what the training says once the network is broken.

python replicas.py RECORDS DEVICES frozen|live [RANK ADDRESS ...]

DEVICES logical devices, or as many workers as there are addresses. `frozen` keeps the
statistics of BatchNorm, whose rounding Adam makes large.
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
from yolov3_tf2.training import devices
from yolov3_tf2.training.optimizer import build_optimizer
from yolov3_tf2.training.trainer import Trainer
from yolov3_tf2.training.workers import collective

TINY = VARIANTS["yolov3-tiny"]
NAMES = ["disc", "block"]
SIZE, BATCH = 96, 4


def main():
    added_up = note_all_reduce()
    path, devices = Path(sys.argv[1]), int(sys.argv[2])
    addresses, share = sys.argv[5:], WHOLE
    if addresses:
        share = Share(int(sys.argv[4]), len(addresses))
        strategy = build_and_stay_able_to_stop(addresses, share.index)
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
    if share.index:  # The first worker's numbers replace these.
        model.trainable_variables[0].assign(model.trainable_variables[0] * 2)
    good_steps = tf.Variable(7 - share.index)  # As float16's scale has them, int32.
    collective.share(strategy, [good_steps])
    assert good_steps.dtype == tf.int32 and int(good_steps) == 7
    assert trainer.share_state({"epoch": 1 - share.index}) == {"epoch": 1}
    # Always filled, so that the statistics of BatchNorm are of the same pictures.
    dataset = build_dataset(
        RecordFiles([path], share), NAMES, TINY, SIZE, BATCH // share.count, True
    )
    parts = trainer.on_devices(next(iter(dataset)))
    at = [part["images"].device for part in parts]
    assert at == list(strategy.extended.worker_devices), at
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
    check_that_thawing_empties(trainer, strategy)
    # On GPUs TensorFlow refuses to add up int32.
    assert added_up and tf.int32 not in added_up, added_up


def build_and_stay_able_to_stop(addresses, rank):
    """The strategy, where a signal to stop is heard after it is built."""
    heard = []
    signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    strategy = devices.build_strategy(addresses, rank)
    os.kill(os.getpid(), signal.SIGTERM)
    assert heard == [signal.SIGTERM]
    return strategy


def check_that_thawing_empties(trainer, strategy):
    """The folded numbers of each device go."""
    with strategy.scope():
        trainer.freeze(["backbone"])
    (kernel, _) = trainer._trained.get_layer("backbone_00_conv").variables
    parts = strategy.experimental_local_results(kernel.value)
    trainer.thaw()
    assert len(parts) == len(strategy.extended.worker_devices)
    for part in parts:
        left = tf.raw_ops.ReadVariableOp(resource=part.handle, dtype=part.dtype)
        assert tf.size(left) == 0


def note_all_reduce():
    """Returns a set that gets the types of all that replicas add up from now on."""
    added_up, all_reduce = set(), tf.distribute.ReplicaContext.all_reduce

    def noted(self, operation, value, *arguments):
        added_up.update(tensor.dtype for tensor in tf.nest.flatten(value))
        return all_reduce(self, operation, value, *arguments)

    tf.distribute.ReplicaContext.all_reduce = noted
    return added_up


if __name__ == "__main__":
    main()
