"""The training loop: one `train_step`, one `eval_step`, under any `tf.distribute`.

Written out, and not `model.fit`, which in Keras 3 does not run on several machines
(keras issue 20585).
"""

import time

import keras
import numpy as np
import tensorflow as tf

from yolov3_tf2 import evaluate, loss, predict
from yolov3_tf2.dataset import iterate
from yolov3_tf2.errors import InputError

# Below what a person would look at: the low scores are part of a precision curve.
EVAL_THRESHOLDS = {"score_threshold": 0.001, "iou_threshold": 0.5, "max_boxes": 100}
# Well above the norm of a healthy step, which is 35 to 180 for fine-tuning on
# photographs: a bad batch cannot throw the weights away, and no other is touched.
CLIP_NORM = 1000.0


def build_strategy():
    """Returns the `tf.distribute.Strategy` of this machine: its GPUs, or its processor.

    GPU memory is taken as it is needed, and not all at once.
    """
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    if len(gpus) > 1:
        return tf.distribute.MirroredStrategy()
    return tf.distribute.OneDeviceStrategy("/gpu:0" if gpus else "/cpu:0")


class Trainer:
    """Trains and evaluates one model.

    Attributes:
        model: the result of `build_model`; its frozen layers stay as they are.
        optimizer: Adam, whose learning rate rises over the first tenth of the steps
            (1,000 at most) and falls as a cosine to a hundredth.
    """

    def __init__(self, model, variant, size, strategy, learning_rate, total_steps):
        """Makes the optimizer; call under `strategy.scope()`.

        Args:
            model: the result of `build_model`, layers frozen as wanted.
            variant: its `grid.Variant`.
            size: side of the network's input, pixels.
            strategy: a `tf.distribute.Strategy`.
            learning_rate: its peak.
            total_steps: steps of the whole training.
        """
        warmup_steps = max(1, min(1000, total_steps // 10))
        schedule = keras.optimizers.schedules.CosineDecay(
            learning_rate / warmup_steps,
            max(1, total_steps - warmup_steps),
            alpha=0.01,
            warmup_target=learning_rate,
            warmup_steps=warmup_steps,
        )
        self.optimizer = keras.optimizers.Adam(schedule)
        self.optimizer.build(model.trainable_variables)
        self.model = model
        self._variant = variant
        self._size = size
        self._strategy = strategy
        self.train_step = tf.function(self._train_step, reduce_retracing=True)
        self.eval_step = tf.function(self._eval_step, reduce_retracing=True)

    def train_epoch(self, dataset, progress=iter):
        """Trains on every batch of a distributed dataset once.

        Args:
            dataset: a distributed dataset of `build_dataset`.
            progress: wraps the batches, for a bar.

        Returns:
            A dict of means a picture: `loss`, its parts; and `lost`, the number of
            boxes for which no anchor was free, `images_per_second`.

        Raises:
            InputError: the loss is no longer finite, or a record cannot be used.
        """
        start = time.perf_counter()
        means = _Means()
        for batch in progress(iterate(dataset)):
            means.add(self.train_step(batch))
            if not np.isfinite(means.last["loss"]):
                raise InputError(
                    f"the loss is {means.last['loss']} at step "
                    f"{self.optimizer.iterations.numpy()}; lower --learning_rate, now "
                    f"{float(self.optimizer.learning_rate):.2g}."
                )
        results = means.results()
        results["images_per_second"] = means.pictures / (time.perf_counter() - start)
        return results

    def evaluate(self, dataset, class_names, progress=iter):
        """Measures loss and average precision on every batch of a dataset.

        Returns:
            A dict: `val_loss`, its parts, and those of `average_precision`.

        Raises:
            InputError: the loss is not finite, or a record cannot be used.
        """
        means, images, truth, found = _Means(), [], [], []
        for batch in progress(iterate(dataset)):
            losses, selected = self.eval_step(batch)
            means.add(losses)
            values = [batch[n] for n in ("weights", "sizes", "boxes", "labels")]
            # Of every replica, of every picture.
            for replica in zip(*map(self._local, [*values, *selected]), strict=True):
                for weight, size_px, boxes, labels, *kept in zip(*replica, strict=True):
                    if not weight:
                        continue
                    image_id = len(images) + 1
                    images.append({"id": image_id})
                    is_box = (boxes[:, 2:] > boxes[:, :2]).all(axis=-1)
                    boxes_px = predict.boxes_to_picture(
                        boxes[is_box], size_px, self._size
                    )
                    truth.append(
                        evaluate.annotations(image_id, boxes_px, labels[is_box])
                    )
                    detected = predict.to_picture(*kept, size_px, self._size)
                    found.append(
                        evaluate.annotations(
                            image_id,
                            detected.boxes_px,
                            detected.labels,
                            detected.scores,
                        )
                    )
        results = {f"val_{name}": value for name, value in means.results().items()}
        results.pop("val_lost", None)
        if not np.isfinite(results["val_loss"]):
            raise InputError(
                f"the loss on the test pictures is {results['val_loss']}: the network "
                "is broken; lower --learning_rate, or give another --model."
            )
        return results | evaluate.average_precision(
            images,
            class_names,
            evaluate.number_annotations(truth),
            evaluate.number_annotations(found),
        )

    def _train_step(self, batch):
        def replica_step(batch):
            with tf.GradientTape() as tape:
                logits = self.model(batch["images"], training=True)
                losses = self._losses(logits, batch)
            variables = self.model.trainable_variables
            gradients = tape.gradient(losses["loss"], variables)
            # Over all replicas, then clipped: as one device with the whole batch.
            gradients, pictures = tf.distribute.get_replica_context().all_reduce(
                "SUM", (gradients, losses["pictures"])
            )
            gradients, _ = tf.clip_by_global_norm(
                [gradient / pictures for gradient in gradients], CLIP_NORM
            )
            # The optimizer adds them up over the replicas once more.
            replicas = self._strategy.num_replicas_in_sync
            self.optimizer.apply_gradients(
                (gradient / replicas, variable)
                for gradient, variable in zip(gradients, variables, strict=True)
            )
            return losses

        losses = self._strategy.run(replica_step, args=(batch,))
        return self._sum(losses)

    def _eval_step(self, batch):
        def replica_step(batch):
            logits = self.model(batch["images"], training=False)
            selected = predict.select(logits, self._variant, **EVAL_THRESHOLDS)
            return self._losses(logits, batch), selected

        losses, selected = self._strategy.run(replica_step, args=(batch,))
        return self._sum(losses), selected

    def _losses(self, logits, batch):
        """Sums over the pictures of a replica, float32 scalars."""
        weights = batch["weights"]
        parts = loss.yolo_loss(logits, batch["targets"], batch["boxes"], self._variant)
        sums = {name: tf.reduce_sum(weights * part) for name, part in parts.items()}
        return {
            "loss": tf.add_n(list(sums.values())),
            **sums,
            "lost": tf.reduce_sum(weights * batch["lost"]),
            "pictures": tf.reduce_sum(weights),
        }

    def _sum(self, values):
        return {
            name: self._strategy.reduce("SUM", value, axis=None)
            for name, value in values.items()
        }

    def _local(self, value):
        """The arrays of the replicas of this machine."""
        return [t.numpy() for t in self._strategy.experimental_local_results(value)]


class _Means:
    """Adds up what the steps return and divides by the number of pictures."""

    def __init__(self):
        self.pictures = 0.0
        self.last = {}
        self._sums = {}

    def add(self, sums):
        self.last = {name: float(value) for name, value in sums.items()}
        self.pictures += self.last["pictures"]
        for name, value in self.last.items():
            self._sums[name] = self._sums.get(name, 0.0) + value

    def results(self):
        pictures = max(self.pictures, 1.0)
        return {
            name: value if name == "lost" else value / pictures
            for name, value in self._sums.items()
            if name != "pictures"
        }
