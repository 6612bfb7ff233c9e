"""What training runs on: the devices of this machine, and the precision."""

import signal
from contextlib import contextmanager
from pathlib import Path

import keras
import tensorflow as tf
from absl import logging

# `auto` stands for one of the others, see `choose_precision`.
PRECISIONS = ("auto", "float32", "bfloat16", "float16")


def build_strategy(addresses=(), rank=0):
    """Returns the `tf.distribute.Strategy` for this machine's GPUs, or for its CPU.

    GPU memory is allocated as needed.

    Args:
        addresses: `host:port` of each worker, where several machines train together.
            The strategy then spans all of them. Call it before any operation runs; it
            waits for the other workers.
        rank: index of this worker in `addresses`.
    """
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    if len(addresses) > 1:
        resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
            tf.train.ClusterSpec({"worker": list(addresses)}),
            task_type="worker",
            task_id=rank,
            num_accelerators={"GPU": len(gpus)},
            rpc_layer="grpc",
        )
        with _restored_handler(signal.SIGTERM):
            return tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
    if len(gpus) > 1:
        return tf.distribute.MirroredStrategy()
    return tf.distribute.OneDeviceStrategy("/gpu:0" if gpus else "/cpu:0")


@contextmanager
def _restored_handler(number):
    """Restores Python's handler of a signal after the block; in the main thread only.

    With several machines, TensorFlow 2.21 installs a handler of SIGTERM that does
    nothing.
    """
    handler = signal.getsignal(number)
    try:
        yield
    finally:
        signal.signal(number, handler)


def describe_devices(strategy):
    """Returns the devices of a strategy in words; warns if this machine has no GPU."""
    if not tf.config.list_physical_devices("GPU"):
        logging.warning("no GPU found, training on CPU")
    replicas = strategy.num_replicas_in_sync
    devices = strategy.extended.worker_devices
    kind = devices[0].split(":")[-2]
    if replicas > len(devices):
        return f"{replicas // len(devices)} workers with {len(devices)} {kind} each"
    return f"{replicas} {kind}"


def choose_precision(name):
    """Returns the precision that `auto` stands for on this machine, or `name` itself.

    float16 on GPUs with tensor cores, bfloat16 on CPUs with instructions for it
    (AVX512-BF16 or AMX), float32 elsewhere.

    Args:
        name: one of `PRECISIONS`.
    """
    if name not in PRECISIONS:
        raise ValueError(
            f"precision: expected one of {', '.join(PRECISIONS)}, got {name!r}."
        )
    if name != "auto":
        return name
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
        volta = (7, 0)  # The first with tensor cores.
        has_cores = all(d.get("compute_capability", (0, 0)) >= volta for d in details)
        return "float16" if has_cores else "float32"
    return "bfloat16" if _has_bfloat16_instructions() else "float32"


def set_precision(name):
    """Makes models built from now on compute in `name`; variables stay float32."""
    keras.config.set_dtype_policy(name if name == "float32" else f"mixed_{name}")


def _has_bfloat16_instructions():
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.is_file():
        return False
    flags = set(cpuinfo.read_text().split())
    return bool(flags & {"avx512_bf16", "amx_bf16"})
