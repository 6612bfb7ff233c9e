"""What a training runs on: the strategy of this machine, and the precision."""

import signal
from contextlib import contextmanager
from pathlib import Path

import keras
import tensorflow as tf


def build_strategy(addresses=(), rank=0):
    """Returns the `tf.distribute.Strategy` of this machine: its GPUs, or its processor.

    GPU memory is taken as it is needed, and not all at once.

    Args:
        addresses: `host:port` of each worker, where several machines train together.
            The strategy then spans them all; to be called before any operation runs,
            and it waits for the others.
        rank: the place of this worker among them.
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
        with _own_handler(signal.SIGTERM):
            return tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
    if len(gpus) > 1:
        return tf.distribute.MirroredStrategy()
    return tf.distribute.OneDeviceStrategy("/gpu:0" if gpus else "/cpu:0")


@contextmanager
def _own_handler(number):
    """Puts Python's handler of a signal back after the block, in the main thread.

    TensorFlow 2.21 takes SIGTERM where several machines train, and does nothing then.
    """
    handler = signal.getsignal(number)
    try:
        yield
    finally:
        signal.signal(number, handler)


PRECISIONS = ("auto", "float32", "bfloat16", "float16")


def choose_precision(name):
    """Returns the precision that `auto` stands for on this machine, or `name` itself.

    float16 on GPUs with tensor cores, bfloat16 on processors that multiply it
    (AVX512-BF16 or AMX), float32 elsewhere.
    """
    if name != "auto":
        return name
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
        volta = (7, 0)  # The first with tensor cores.
        has_cores = all(d.get("compute_capability", (0, 0)) >= volta for d in details)
        return "float16" if has_cores else "float32"
    return "bfloat16" if _multiplies_bfloat16() else "float32"


def set_precision(name):
    """Makes models built from now on compute in `name`; variables stay float32."""
    keras.config.set_dtype_policy(name if name == "float32" else f"mixed_{name}")


def _multiplies_bfloat16():
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.is_file():
        return False
    flags = set(cpuinfo.read_text().split())
    return bool(flags & {"avx512_bf16", "amx_bf16"})
