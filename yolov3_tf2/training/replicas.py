"""Runs a compiled step on the batches of a dataset, split over a worker's devices.

Does not use `experimental_distribute_dataset`: TensorFlow tunes its iterators in a
thread that delays the end of each epoch, see `dataset.build_options`.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tensorflow as tf

from yolov3_tf2.data.dataset import iterate


def run_steps(strategy, step, dataset, progress=iter):
    """Yields each batch of a dataset with what `step` returns for it.

    While the devices compute one batch, a thread reads the next one and copies it to
    them. A step returns when most of it is done, also on a GPU.

    Args:
        strategy: a `tf.distribute.Strategy`.
        step: takes the result of `copy_to_devices`.
        dataset: a `tf.data.Dataset` of dicts of tensors.
        progress: wraps the batches, for a progress bar.
    """
    batches = (
        (batch, copy_to_devices(strategy, batch))
        for batch in progress(iterate(dataset))
    )
    with ThreadPoolExecutor(1) as thread:
        upcoming = thread.submit(next, batches, None)
        while pair := upcoming.result():
            batch, parts = pair
            upcoming = thread.submit(next, batches, None)
            yield batch, step(parts)


def copy_to_devices(strategy, batch):
    """Splits a batch evenly; returns a list with one part on each device."""
    devices = strategy.extended.worker_devices
    num_images = len(batch["images"]) // len(devices)
    parts = []
    for index, device in enumerate(devices):
        rows = slice(index * num_images, (index + 1) * num_images)
        with tf.device("/cpu:0"):  # So that a device receives its part only.
            part = tf.nest.map_structure(lambda tensor, rows=rows: tensor[rows], batch)
        with tf.device(device):
            parts.append(tf.nest.map_structure(tf.identity, part))
    return parts


def to_per_replica(strategy, parts):
    """Converts the result of `copy_to_devices` to an argument of `strategy.run`."""
    return strategy.experimental_distribute_values_from_function(
        lambda context: parts[context.replica_id_in_sync_group % len(parts)]
    )


def first_result(strategy, value):
    """Returns the value of the first replica on this machine."""
    return strategy.experimental_local_results(value)[0]


def concatenate_results(strategy, value):
    """Returns one array of the values of all replicas on this machine."""
    return np.concatenate(strategy.experimental_local_results(value))
