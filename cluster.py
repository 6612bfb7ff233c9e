"""The machines that train together: those of a distributed task, or of TF_CONFIG.

Each runs the same step with the same inputs. The first of them, the master, writes the
outputs and the log.
"""

import json
import os
import re
import textwrap
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

    def led_by(self, rank):
        """The same workers, with another one as the master."""
        order = [rank, *(r for r in range(len(self.addresses)) if r != rank)]
        addresses = [self.addresses[r] for r in order]
        return Cluster(addresses, order.index(self.rank))


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
    return _of_tf_config(os.environ.get("TF_CONFIG", ""))


def _of_tf_config(text):
    if not text:
        return Cluster([], 0)
    try:
        config = json.loads(text)
        # TensorFlow's order: a chief is the first of the workers.
        addresses = {
            (kind, index): str(address)
            for kind in ("chief", "worker")
            for index, address in enumerate(config["cluster"].get(kind, []))
        }
        others = set(config["cluster"]) - {"chief", "worker"}
        task = (config["task"]["type"], int(config["task"]["index"]))
        if others or task not in addresses:
            raise ValueError(f"{others or task}")
        if not all(re.fullmatch(r".+:\d+", address) for address in addresses.values()):
            raise ValueError("an address without a port")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            'TF_CONFIG: expected {"cluster": {"worker": ["host:port", …]}, "task": '
            f'{{"type": "worker", "index": 0}}}}, got {text} ({error!r}).'
        ) from error
    return Cluster(list(addresses.values()), list(addresses).index(task))


def agree(cluster, others, facts, epoch):
    """Compares what the workers are about to do, and chooses the master.

    It is the one with the newest checkpoints, as machines that are started again may
    be numbered otherwise; the first, where none has more than it.

    Args:
        cluster: the result of `find`.
        others: the `Rendezvous` of its workers.
        facts: what is to be the same on all: a dict of names to values.
        epoch: the epoch of the newest checkpoint of this worker, -1 without one.

    Returns:
        The cluster, numbered so that the master is the first.

    Raises:
        InputError: they are not about to do the same.
    """
    answers = others.exchange([facts, epoch])
    for rank, (theirs, _) in enumerate(answers):
        for name, first in answers[0][0].items():
            if theirs[name] != first:
                raise InputError(
                    f"the workers differ in {name}: expected the same on each machine, "
                    f"got {_short(first)} on worker 0 ({cluster.addresses[0]}) and "
                    f"{_short(theirs[name])} on worker {rank} "
                    f"({cluster.addresses[rank]}); give each the same command and "
                    "inputs, and take machines of one kind."
                )
    epochs = [epoch for _, epoch in answers]
    cluster = cluster.led_by(epochs.index(max(epochs))) if epochs[1:] else cluster
    if len(cluster.addresses) > 1:
        logging.info(
            "worker %d of %s: %s",
            cluster.rank,
            ", ".join(cluster.addresses),
            "the master" if cluster.is_master else "the first of them logs and writes",
        )
    if not cluster.is_master:
        logging.set_verbosity(logging.WARNING)
    return cluster


def _short(value):
    return textwrap.shorten(str(value), 200, placeholder="…")


@contextmanager
def joined(cluster):
    """Says what happened where another worker of the block's has ended.

    Raises:
        InputError: another worker no longer answers.
    """
    import tensorflow as tf

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
