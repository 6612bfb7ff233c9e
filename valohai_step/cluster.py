"""The machines that train together: those of a distributed task, or of TF_CONFIG.

Each runs the same step with the same inputs. The first of them, the master, writes the
outputs and the log.
"""

import hashlib
import itertools
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
    def address(self):
        """That of this worker."""
        return self.addresses[self.rank]

    @property
    def is_master(self):
        return self.rank == 0

    def led_by(self, rank):
        """The same workers, with another one as the master."""
        order = [rank, *(r for r in range(len(self.addresses)) if r != rank)]
        addresses = [self.addresses[r] for r in order]
        return Cluster(addresses, order.index(self.rank))


def find_cluster():
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
        addresses = [_address(m.primary_local_ip, FIRST_PORT + m.rank) for m in members]
        return Cluster(addresses, valohai.distributed.rank)
    return _of_tf_config(os.environ.get("TF_CONFIG", ""))


def _address(ip, port):
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


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
        for address in addresses.values():
            port = re.fullmatch(r".+:(\d{1,5})", address)
            if not (port and 0 < int(port[1]) < 2**16):
                raise ValueError(f"no port of 1 to {2**16 - 1} in {address}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            'TF_CONFIG: expected {"cluster": {"worker": ["host:port", …]}, "task": '
            f'{{"type": "worker", "index": 0}}}}, got {text} ({error!r}).'
        ) from error
    return Cluster(list(addresses.values()), list(addresses).index(task))


def describe_run(given):
    """What is to be the same on all workers.

    Args:
        given: a `Given` of train.py.

    Returns:
        A dict of names to values, which JSON can write.
    """
    import tensorflow as tf

    from yolov3_tf2.network import checkpoint
    from yolov3_tf2.training import devices

    model = checkpoint.read_model_info(given.model_folder)
    # It has a checksum of each of the model's tensors.
    index = (given.model_folder / checkpoint.FILES[0]).read_bytes()
    files = {"train": given.train_paths, "test": given.test_paths}
    return {
        "number of GPUs": len(tf.config.list_physical_devices("GPU")),
        **{f"--{name}": value for name, value in given.values.items()},
        "precision": devices.choose_precision(given.values["precision"]),
        "classes": given.class_names,
        "network of the input 'model'": model.variant.name,
        "classes of the input 'model'": model.class_names,
        "digest of the input 'model'": hashlib.sha256(index).hexdigest()[:16],
        **{
            f"files of the input '{name}'": [
                f"{path.name} of {path.stat().st_size} bytes" for path in paths
            ]
            for name, paths in files.items()
        },
    }


def agree_on_master(cluster, others, facts, epoch):
    """Compares what the workers are about to do, and chooses the master.

    It is the one with the newest checkpoints, as machines that are started again may
    be numbered otherwise; the first, where none has more than it.

    Args:
        cluster: the result of `find`.
        others: the `Rendezvous` of its workers.
        facts: the result of `facts`.
        epoch: the epoch of the newest checkpoint of this worker, -1 without one.

    Returns:
        The cluster, numbered so that the master is the first.

    Raises:
        InputError: they are not about to do the same.
    """
    answers = others.exchange([facts, epoch])
    for rank, (theirs, _) in enumerate(answers):
        difference = _difference(answers[0][0], theirs)
        if difference:
            name, first, other = difference
            raise InputError(
                f"the workers differ in {name}: expected the same on each machine, "
                f"got {_short(first)} on worker 0 ({cluster.addresses[0]}) and "
                f"{_short(other)} on worker {rank} ({cluster.addresses[rank]}); give "
                "each the same command and inputs, and take machines of one kind."
            )
    epochs = [epoch for _, epoch in answers]
    cluster = cluster.led_by(epochs.index(max(epochs))) if epochs[1:] else cluster
    if len(cluster.addresses) > 1:
        # Not by their numbers, which may be new.
        logging.info(
            "worker %s of %s: %s",
            cluster.address,
            ", ".join(cluster.addresses),
            "the master" if cluster.is_master else "the first of them logs and writes",
        )
    if not cluster.is_master:
        logging.set_verbosity(logging.WARNING)
    return cluster


def _difference(first, other):
    """Returns the name and both values of what two dicts differ in; None if nothing.

    Of lists the first elements that differ, as a whole list is too long to read.
    """
    for name in first | other:
        values = first.get(name, "nothing"), other.get(name, "nothing")
        if values[0] == values[1]:
            continue
        if all(isinstance(value, list) for value in values):
            pairs = itertools.zip_longest(*values, fillvalue="nothing")
            for number, pair in enumerate(pairs, 1):
                if pair[0] != pair[1]:
                    return f"{name}, number {number}", *pair
        return name, *values
    return None


def _short(value):
    return textwrap.shorten(str(value), 500, placeholder="…")


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
        cause = reason(error).rpartition("aborted by: ")[2]
        cause = re.split(" Additional| The error could be from", cause)[0].rstrip(".")
        raise InputError(
            f"worker {cluster.address}: another of the {len(cluster.addresses)} "
            f"workers ({', '.join(cluster.addresses)}) no longer answers ({cause}); "
            "its own log says why it ended. Started again with the files of "
            "checkpoints/, the training goes on after its last whole epoch."
        ) from error
