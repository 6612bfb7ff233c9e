"""The machines that train together: those of a distributed task, or of TF_CONFIG.

Each runs the same step with the same inputs. The first of them, the master, writes the
outputs and the log.
"""

import json
import os
from contextlib import contextmanager
from typing import NamedTuple

import valohai
from absl import logging

from yolov3_tf2.errors import InputError, reason

# Each worker listens on this port and the number of its rank.
FIRST_PORT = 23450


class Cluster(NamedTuple):
    """The workers that train together.

    Attributes:
        addresses: list of `host:port`, one a worker; empty where there is no cluster.
        rank: the place of this worker in it.
    """

    addresses: list
    rank: int

    @property
    def is_master(self):
        return self.rank == 0


def find():
    """Finds the workers of a Valohai distributed task, or those in `TF_CONFIG`.

    Raises:
        InputError: there are fewer of them than the task has, or `TF_CONFIG` is not
            what TensorFlow documents.
    """
    if valohai.distributed.is_distributed_task():
        members = sorted(valohai.distributed.members(), key=lambda m: m.rank)
        expected = valohai.distributed.required_count
        if len(members) < expected:
            raise InputError(
                f"distributed task: expected {expected} workers, got {len(members)}; "
                "has the task enough machines?"
            )
        addresses = [f"{m.primary_local_ip}:{FIRST_PORT + m.rank}" for m in members]
        return Cluster(addresses, valohai.distributed.rank)
    text = os.environ.get("TF_CONFIG")
    if not text:
        return Cluster([], 0)
    try:
        config = json.loads(text)
        addresses = [str(address) for address in config["cluster"]["worker"]]
        rank = int(config["task"]["index"])
        if config["task"]["type"] != "worker" or not 0 <= rank < len(addresses):
            raise ValueError(f"worker {rank} of {len(addresses)}")
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            'TF_CONFIG: expected {"cluster": {"worker": ["host:port", …]}, "task": '
            f'{{"type": "worker", "index": 0}}}}, got {text} ({error!r}).'
        ) from error
    return Cluster(addresses, rank)


@contextmanager
def joined(cluster):
    """Says what happened where another worker of the block's has ended.

    Workers that are not the master say nothing but warnings.

    Raises:
        InputError: another worker no longer answers.
    """
    import tensorflow as tf

    if len(cluster.addresses) > 1:
        logging.info(
            "worker %d of %d: waiting for %s",
            cluster.rank,
            len(cluster.addresses),
            ", ".join(cluster.addresses),
        )
    if not cluster.is_master:
        logging.set_verbosity(logging.WARNING)
    try:
        yield
    except (
        tf.errors.UnavailableError,
        tf.errors.AbortedError,
        tf.errors.CancelledError,
        tf.errors.DeadlineExceededError,
    ) as error:
        if len(cluster.addresses) < 2:
            raise
        # Behind this and before that is what the network said.
        cause = reason(error).rpartition("aborted by: ")[2].partition(" Additional")[0]
        raise InputError(
            f"worker {cluster.rank}: another of the {len(cluster.addresses)} workers "
            f"({', '.join(cluster.addresses)}) no longer answers ({cause}); its own "
            "log says why it ended. Started again with the files of checkpoints/, the "
            "training goes on after its last whole epoch."
        ) from error
