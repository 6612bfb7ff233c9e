"""What the workers of a `tf.distribute` strategy tell each other besides gradients.

By sums alone, which are what every kind of collective communication has; not of int32,
which TensorFlow does not add up on GPUs. All workers must call these functions at the
same places.
"""

import functools
import pickle

import numpy as np
import tensorflow as tf


def num_workers(strategy):
    """Returns the number of machines that `strategy` spans."""
    return strategy.num_replicas_in_sync // len(strategy.extended.worker_devices)


def gather(strategy, value):
    """Returns a list of what each worker gives, by rank: anything that pickles."""
    if num_workers(strategy) == 1:
        return [value]
    data = pickle.dumps(value)
    data = np.frombuffer(data + b"\0" * (-len(data) % 8), "int64")
    size = _rows(strategy, np.array([data.size], "int64")).max()
    rows = _rows(strategy, np.pad(data, (0, size - data.size)))
    return [pickle.loads(row.tobytes()) for row in rows]


def share(strategy, variables):
    """Sets variables to what they are on the first worker, on all others."""
    if num_workers(strategy) == 1:
        return

    @tf.function(autograph=False)
    def of_the_first():
        def replica():
            context = tf.distribute.get_replica_context()
            is_first = context.replica_id_in_sync_group == 0
            shared = []
            for value in map(tf.convert_to_tensor, variables):
                kept = tf.int64 if value.dtype == tf.int32 else value.dtype
                value = tf.cast(value, kept)
                value = tf.where(is_first, value, tf.zeros_like(value))
                shared.append(context.all_reduce("SUM", value))
            return shared

        return strategy.run(replica)

    for variable, value in zip(variables, of_the_first(), strict=True):
        value = strategy.experimental_local_results(value)[0]
        variable.assign(tf.cast(value, variable.dtype))


def _rows(strategy, row):
    """Returns `[workers, numbers]` of the `[numbers]` int64 that each worker gives."""
    rows = _adder(strategy)(tf.constant(row))
    return strategy.experimental_local_results(rows)[0].numpy()


@functools.lru_cache(maxsize=1)
def _adder(strategy):
    devices, workers = len(strategy.extended.worker_devices), num_workers(strategy)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64)], autograph=False)
    def add(row):
        def replica():
            context = tf.distribute.get_replica_context()
            number = context.replica_id_in_sync_group
            # The first device of each worker speaks for it.
            mine = tf.range(workers) * devices == number
            return context.all_reduce("SUM", tf.where(mine[:, None], row, 0 * row))

        return strategy.run(replica)

    return add
