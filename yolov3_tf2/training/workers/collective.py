"""Exchanges values and variables between the workers of a `tf.distribute` strategy.

By sums only, which every kind of collective communication supports; not of int32,
which TensorFlow does not sum on GPUs. All workers must call these functions in the same
order.
"""

import functools
import pickle

import numpy as np
import tensorflow as tf


def num_workers(strategy):
    """Returns the number of machines that `strategy` spans."""
    return strategy.num_replicas_in_sync // len(strategy.extended.worker_devices)


def gather(strategy, value):
    """Returns a list of the `value` of each worker, by rank: anything that pickles."""
    if num_workers(strategy) == 1:
        return [value]
    data = pickle.dumps(value)
    data = np.frombuffer(data + b"\0" * (-len(data) % 8), "int64")
    size = _rows(strategy, np.array([data.size], "int64")).max()
    rows = _rows(strategy, np.pad(data, (0, size - data.size)))
    return [pickle.loads(row.tobytes()) for row in rows]


def broadcast(strategy, variables):
    """Sets variables on all workers to their values on the first one."""
    if num_workers(strategy) == 1:
        return

    @tf.function(autograph=False)
    def values_of_first_worker():
        def replica():
            context = tf.distribute.get_replica_context()
            is_first = context.replica_id_in_sync_group == 0
            values = []
            for value in map(tf.convert_to_tensor, variables):
                if value.dtype == tf.int32:
                    value = tf.cast(value, tf.int64)
                value = tf.where(is_first, value, tf.zeros_like(value))
                values.append(context.all_reduce("SUM", value))
            return values

        return strategy.run(replica)

    for variable, value in zip(variables, values_of_first_worker(), strict=True):
        value = strategy.experimental_local_results(value)[0]
        variable.assign(tf.cast(value, variable.dtype))


def _rows(strategy, row):
    """Returns `[workers, numbers]` from the `[numbers]` int64 of each worker."""
    rows = _build_gather(strategy)(tf.constant(row))
    return strategy.experimental_local_results(rows)[0].numpy()


@functools.lru_cache(maxsize=1)
def _build_gather(strategy):
    """Compiles the function behind `_rows`; once, as tracing takes seconds."""
    devices, workers = len(strategy.extended.worker_devices), num_workers(strategy)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64)], autograph=False)
    def gather_rows(row):
        def replica():
            context = tf.distribute.get_replica_context()
            replica_id = context.replica_id_in_sync_group
            # The first device of each worker adds the worker's row, the others zeros.
            is_own = tf.range(workers) * devices == replica_id  # [workers]
            return context.all_reduce("SUM", tf.where(is_own[:, None], row, 0 * row))

        return strategy.run(replica)

    return gather_rows
