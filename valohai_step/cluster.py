"""The workers that train together: of a Valohai distributed task, or of `TF_CONFIG`.

Each machine runs the same step with the same inputs. The first worker, the master,
writes the outputs and the log.
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

# The ports of the workers of a Valohai task, below those that systems give to outgoing
# connections.
PORTS = range(20000, 30000)


class Cluster(NamedTuple):
    """The workers that train together.

    Attributes:
        addresses: list of `host:port`, one per worker; empty without a cluster.
        rank: index of this worker in `addresses`.
    """

    addresses: list
    rank: int

    @property
    def address(self):
        """The address of this worker."""
        return self.addresses[self.rank]

    @property
    def is_master(self):
        return self.rank == 0

    def with_master(self, rank):
        """Returns the same workers, with the one of `rank` first."""
        order = [rank, *(r for r in range(len(self.addresses)) if r != rank)]
        addresses = [self.addresses[r] for r in order]
        return Cluster(addresses, order.index(self.rank))


def find_cluster():
    """Finds the workers of a Valohai distributed task, or those in `TF_CONFIG`.

    Raises:
        InputError: the task has fewer workers than it requires, or `TF_CONFIG` is not
            as TensorFlow documents it.
    """
    if valohai.distributed.is_distributed_task():
        members = sorted(valohai.distributed.members(), key=lambda m: m.rank)
        expected = valohai.distributed.required_count
        if len(members) < expected:
            raise InputError(
                f"distributed task: expected {expected} workers, got {len(members)}; "
                "are enough machines available for the task?"
            )
        port = _find_first_port(valohai.distributed.group_name, len(members))
        addresses = [_join_address(m.primary_local_ip, port + m.rank) for m in members]
        return Cluster(addresses, valohai.distributed.rank)
    return _parse_tf_config(os.environ.get("TF_CONFIG", ""))


def _find_first_port(task, number):
    """Returns the port of worker 0; worker n has the n-th after it.

    All workers find the same one, and two tasks on one machine hardly ever do.
    """
    digest = hashlib.sha256(task.encode()).digest()
    return PORTS[int.from_bytes(digest[:8], "big") % (len(PORTS) - number)]


def _join_address(ip, port):
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def _parse_tf_config(text):
    if not text:
        return Cluster([], 0)
    try:
        config = json.loads(text)
        # In TensorFlow's order a chief comes before the workers.
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
                raise ValueError(f"no port from 1 to {2**16 - 1} in {address}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            'TF_CONFIG: expected {"cluster": {"worker": ["host:port", …]}, "task": '
            f'{{"type": "worker", "index": 0}}}}, got {text} ({error!r}).'
        ) from error
    return Cluster(list(addresses.values()), list(addresses).index(task))


def describe_run(settings):
    """Returns what must be equal on all workers: a dict that JSON can write.

    Args:
        settings: the `Settings` of train.py.
    """
    import tensorflow as tf

    from yolov3_tf2.network import checkpoint
    from yolov3_tf2.training import devices

    model = checkpoint.read_model_info(settings.model_folder)
    # The index holds a checksum of each tensor of the model.
    index = (settings.model_folder / checkpoint.FILES[0]).read_bytes()
    files = {
        "train": settings.train_paths,
        "validation": settings.validation_paths,
        "test": settings.test_paths,
    }
    return {
        "number of GPUs": len(tf.config.list_physical_devices("GPU")),
        **{f"--{name}": value for name, value in settings.values.items()},
        "precision": devices.choose_precision(settings.values["precision"]),
        "classes": settings.class_names,
        "network of the input 'model'": model.variant.name,
        "anchors of the input 'model'": str(model.variant.anchors),
        "classes of the input 'model'": model.class_names,
        "digest of the input 'model'": hashlib.sha256(index).hexdigest()[:16],
        **{
            f"files of the input '{name}'": [
                f"{path.name} of {path.stat().st_size} bytes" for path in paths
            ]
            for name, paths in files.items()
        },
    }


def agree_on_master(cluster, rendezvous, description, epoch):
    """Checks that all workers are about to do the same, and chooses the master.

    The master is the worker with the newest checkpoint, as restarted machines may get
    other ranks; the first of them, where several have it.

    Args:
        cluster: the result of `find_cluster`.
        rendezvous: the `Rendezvous` of its workers.
        description: the result of `describe_run`.
        epoch: the epoch of the newest checkpoint of this worker, -1 without one.

    Returns:
        The cluster, with the master first.

    Raises:
        InputError: the workers differ.
    """
    answers = rendezvous.exchange([description, epoch])
    for rank, (theirs, _) in enumerate(answers):
        difference = _find_difference(answers[0][0], theirs)
        if difference:
            name, first, other = difference
            raise InputError(
                f"the workers differ in {name}: expected the same on each machine, "
                f"got {_shorten(first)} on worker 0 ({cluster.addresses[0]}) and "
                f"{_shorten(other)} on worker {rank} ({cluster.addresses[rank]}); use "
                "the same command, inputs and type of machine for all."
            )
    epochs = [epoch for _, epoch in answers]
    cluster = cluster.with_master(epochs.index(max(epochs))) if epochs[1:] else cluster
    if len(cluster.addresses) > 1:
        # By addresses, as ranks may have changed.
        logging.info(
            "worker %s of %s: %s",
            cluster.address,
            ", ".join(cluster.addresses),
            "the master" if cluster.is_master else "the first one logs and writes",
        )
    if not cluster.is_master:
        logging.set_verbosity(logging.WARNING)
    return cluster


def _find_difference(first, other):
    """Returns the first difference of two dicts: name and both values; None if equal.

    Of lists it returns the first elements that differ, as whole lists are too long.
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


def _shorten(value):
    return textwrap.shorten(str(value), 500, placeholder="…")


@contextmanager
def translate_worker_errors(cluster):
    """Turns TensorFlow's errors about another worker into an `InputError`.

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
        # The network's own message is between these words.
        cause = reason(error).rpartition("aborted by: ")[2]
        cause = re.split(" Additional| The error could be from", cause)[0].rstrip(".")
        raise InputError(
            f"worker {cluster.address}: another of the {len(cluster.addresses)} "
            f"workers ({', '.join(cluster.addresses)}) no longer answers ({cause}); "
            "see its own log. Start the step again with the files of checkpoints/ to "
            "resume after the last complete epoch."
        ) from error
