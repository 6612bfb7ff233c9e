"""The training loop: one `train_step`, one `eval_step`, under any `tf.distribute`.

Written out, and not `model.fit`, which in Keras 3 does not run on several machines
(keras issue 20585).
"""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tensorflow as tf

from yolov3_tf2.data import records
from yolov3_tf2.data.dataset import iterate
from yolov3_tf2.errors import InputError
from yolov3_tf2.evaluation import coco
from yolov3_tf2.evaluation.coco import EvaluatedImage
from yolov3_tf2.inference import detector, nms
from yolov3_tf2.network import folding
from yolov3_tf2.training import loss
from yolov3_tf2.training.optimizer import LossScale
from yolov3_tf2.training.workers import collective

# Below what a person would look at: the low scores are part of a precision curve.
EVAL_THRESHOLDS = {"score_threshold": 0.001, "iou_threshold": 0.5, "max_boxes": 100}


class Trainer:
    """Trains one model and evaluates the moving average of its weights.

    Attributes:
        model: the network that is trained.
        averaged: the network that is evaluated and saved; `model` itself where no
            average is kept.
        optimizers: the optimizer of the new layers, and that of the kept ones.
        loss_scale: an `optimizer.LossScale`, None but for float16.
    """

    def __init__(
        self, model, averaged, variant, strategy, groups, *, box_loss, ema, clip_norm
    ):
        """Call under `strategy.scope()`.

        Args:
            model: the result of `build_model`.
            averaged: another one, or `model`.
            variant: their `variants.Variant`.
            strategy: a `tf.distribute.Strategy`.
            groups: list of pairs of an optimizer and the layers that it trains. A
                layer that is not trainable at the time stays as it is.
            box_loss: one of `loss.BOX_LOSSES`.
            ema: the decay of the average: what a step keeps of it. It is smaller in
                the first steps, (1 + step) / (10 + step).
            clip_norm: the norm to which longer gradients are cut.
        """
        self.model = model
        self.averaged = averaged
        self.optimizers = [optimizer for optimizer, _ in groups]
        self._layers = [layers for _, layers in groups]
        self._variant = variant
        self._strategy = strategy
        self._box_loss = box_loss
        self._ema = ema
        self._clip_norm = clip_norm
        self.loss_scale = None
        if model.layers[1].compute_dtype == "float16":
            self.loss_scale = LossScale()
        self._steps = tf.Variable(0.0, trainable=False)
        self._trained = model  # Or the same with its frozen layers folded.
        self._functions = {}

    def freeze(self, parts):
        """Keeps parts of the network as they are until `thaw`, for a faster step.

        Their BatchNorm is in inference mode, and folded into the convolutions.

        Args:
            parts: those of `model.PARTS` that are kept.
        """
        self._trained = folding.freeze_parts(self.model, parts)

    def thaw(self):
        """Trains the frozen layers from now on; does nothing where none are.

        The numbers of their folded copy go, up to 245 MB for yolov3.
        """
        if self._trained is not self.model:
            for layer in self.model.layers:
                layer.trainable = True
            _empty(self._trained, kept=self.model)
            self._trained = self.model
            self._functions = {
                (step, spec): function
                for (step, spec), function in self._functions.items()
                if step != self._train_step
            }

    def learning_rate(self):
        """Returns the learning rate of the next step, the new layers' if there are."""
        return float(self.optimizers[0].learning_rate)

    def start_average(self):
        """Sets the average to the model's weights; call it before the first step."""
        if self.averaged is not self.model:
            for average, variable in self._averages():
                average.assign(variable)

    def state(self):
        """Returns all that a training goes on from: a dict of names to variables."""
        variables = {"steps": self._steps}
        models = {"model": self.model, "averaged": self.averaged}
        for name, model in models.items():
            for variable in model.variables:
                variables[f"{name}/{variable.path}"] = variable.value
        for optimizer in self.optimizers:
            for variable in optimizer.variables:
                variables[f"{optimizer.name}/{variable.path}"] = variable.value
        if self.loss_scale:
            variables["loss_scale/scale"] = self.loss_scale.scale
            variables["loss_scale/good_steps"] = self.loss_scale.good_steps
        return variables

    def share_state(self, value=None):
        """Gives all workers the state of the first one; returns its `value` to them."""
        collective.share(self._strategy, list(self.state().values()))
        return collective.gather(self._strategy, value)[0]

    def train_epoch(self, dataset, paths, progress=iter):
        """Trains on every batch of a dataset once.

        Args:
            dataset: the result of `build_training_dataset`.
            paths: its TFRecord files, to name the pictures of a step that fails.
            progress: wraps the batches, for a bar.

        Returns:
            A dict of means a picture: `loss`, its parts; and `unassigned`, the number
            of boxes for which no anchor was free, `gradient_norm`, a mean of the steps,
            and `images_per_second`.

        Raises:
            InputError: the loss is no longer finite, or a record cannot be used.
        """
        start = time.perf_counter()
        means, norms = _Means(), []
        train_step = self.train_function(dataset)
        for batch, (losses, norm) in self._run(train_step, dataset, progress):
            means.add(losses)
            norms.append(float(norm))
            # A gradient that overflows float16 makes the loss scale smaller.
            is_finite = np.isfinite(norms[-1]) or self.loss_scale
            if not (np.isfinite(means.last["loss"]) and is_finite):
                raise InputError(self._describe_failure(means, batch, paths))
        results = means.results()
        finite = [norm for norm in norms if np.isfinite(norm)]
        results["gradient_norm"] = float(np.mean(finite)) if finite else 0.0
        results["images_per_second"] = means.pictures / (time.perf_counter() - start)
        return results

    def train_function(self, dataset):
        """Returns the compiled step for the batches of a dataset.

        It takes what `on_devices` makes of a batch, and returns its sums of losses and
        the gradient's norm.
        """
        if self._trained is not self.model:
            folding.update_folded(self._trained, self.model)
        return self._function(self._train_step, dataset)

    def _describe_failure(self, means, batch, paths):
        shares = collective.gather(self._strategy, batch["numbers"].numpy().tolist())
        rows = records.read_examples(
            paths, sorted({n for share in shares for n in share})
        )
        names = ", ".join(row["source_id"].numpy().decode("utf-8") for row in rows)
        advice = (
            "lower --learning_rate or --clip_norm"
            if self.loss_scale is None
            else "try --precision=float32, or lower --learning_rate"
        )
        return (
            f"the loss is {means.last['loss']} at step {int(self._steps.numpy())}, "
            f"learning rate {self.learning_rate():.2g}; {advice}, and look at the "
            f"boxes of the pictures of this step: {names}."
        )

    def evaluate(self, dataset, class_names, size, progress=iter):
        """Measures loss and average precision on every batch of a dataset.

        Args:
            dataset: the result of `build_dataset`.
            class_names: list of strings.
            size: side of the network's input, pixels.
            progress: wraps the batches, for a bar.

        Returns:
            A dict: `val_loss`, its parts, and those of `average_precision`; and a
            list of `coco.EvaluatedImage`.

        Raises:
            InputError: the loss is not finite, or a record cannot be used.
        """
        means, pictures = _Means(), []
        eval_step = self._function(self._eval_step, dataset)
        for batch, (losses, selected) in self._run(eval_step, dataset, progress):
            means.add(losses)
            names = ("weights", "numbers", "sizes", "boxes", "labels")
            values = [batch[name].numpy() for name in names]
            for weight, number, size_px, boxes, labels, *kept in zip(
                *values, *map(self._gather, selected), strict=True
            ):
                if not weight:
                    continue
                is_box = (boxes[:, 2:] > boxes[:, :2]).all(axis=-1)
                pictures.append(
                    EvaluatedImage(
                        int(number),
                        detector.boxes_to_pixels(boxes[is_box], size_px, size),
                        labels[is_box],
                        detector.to_detections(*kept, size_px, size),
                    )
                )
        shares = collective.gather(self._strategy, pictures)
        pictures = [picture for share in shares for picture in share]
        results = {f"val_{name}": value for name, value in means.results().items()}
        results.pop("val_unassigned", None)
        if not np.isfinite(results["val_loss"]):
            raise InputError(
                f"the loss on the test pictures is {results['val_loss']}: the network "
                "is broken; lower --learning_rate, or give another --model."
            )
        evaluation = coco.evaluate_images(pictures, class_names)
        return results | coco.average_precision(evaluation, class_names), pictures

    def _run(self, step, dataset, progress):
        """Yields each batch of a dataset with what a step returns for it.

        While the devices compute one, a thread reads the next and copies it to them:
        the call of a step returns when most of it is done, also on a GPU.
        """
        batches = (
            (batch, self.on_devices(batch)) for batch in progress(iterate(dataset))
        )
        with ThreadPoolExecutor(1) as thread:
            following = thread.submit(next, batches, None)
            while pair := following.result():
                batch, parts = pair
                following = thread.submit(next, batches, None)
                yield batch, step(parts)

    def _train_step(self, parts):
        scale = self.loss_scale.scale if self.loss_scale else 1.0

        def replica_step(batch):
            context = tf.distribute.get_replica_context()
            pictures = context.all_reduce("SUM", tf.reduce_sum(batch["weights"]))
            with tf.GradientTape() as tape:
                logits = self._trained(batch["images"], training=True)
                losses = self._losses(logits, batch)
                scaled = losses["loss"] * scale / pictures
            groups = [
                [v for layer in layers for v in layer.trainable_variables]
                for layers in self._layers
            ]
            variables = [variable for group in groups for variable in group]
            gradients = tape.gradient(scaled, variables)
            # Over all replicas, then clipped: as one device with the whole batch.
            gradients = context.all_reduce("SUM", gradients)
            gradients, norm = self._clip(gradients, scale)
            for optimizer, group in zip(self.optimizers, groups, strict=True):
                if group:
                    optimizer.apply_gradients(zip(gradients, group, strict=False))
                    gradients = gradients[len(group) :]
            return context.all_reduce("SUM", losses), norm

        # The same on all replicas.
        losses, norm = tf.nest.map_structure(
            self._of_one, self._strategy.run(replica_step, (self._distribute(parts),))
        )
        if self.loss_scale:
            self.loss_scale.update(tf.math.is_finite(norm))
        self._steps.assign_add(1.0)
        if self.averaged is not self.model:
            decay = tf.minimum(self._ema, (1 + self._steps) / (10 + self._steps))
            for average, variable in self._averages(changing=True):
                average.assign_sub((1 - decay) * (average - variable))
        return losses, norm

    def _clip(self, gradients, scale):
        """Takes the loss scale off the gradients, and cuts them to the longest norm.

        Returns:
            The gradients, zeros where they have overflown; and their norm before.
        """
        norm = tf.linalg.global_norm(gradients) / scale
        factor = self._clip_norm / tf.maximum(norm, self._clip_norm) / scale
        if self.loss_scale:
            factor = tf.where(tf.math.is_finite(norm), factor, 0.0)
        # A pass over all gradients takes as long as some layers.
        gradients = tf.cond(
            tf.equal(factor, 1.0),
            lambda: gradients,
            lambda: [tf.math.multiply_no_nan(g, factor) for g in gradients],
        )
        return gradients, norm

    def _averages(self, changing=False):
        """Pairs of the average of a variable and the variable.

        Args:
            changing: leaves out those of frozen layers, whose average is what they are.
        """
        layers = zip(self.averaged.layers, self.model.layers, strict=True)
        return [
            (average.value, variable.value)
            for averages, layer in layers
            if layer.trainable or not changing
            for average, variable in zip(
                averages.variables, layer.variables, strict=True
            )
        ]

    def _eval_step(self, parts):
        def replica_step(batch):
            logits = self.averaged(batch["images"], training=False)
            selected = nms.suppress(logits, self._variant, **EVAL_THRESHOLDS)
            losses = self._losses(logits, batch)
            context = tf.distribute.get_replica_context()
            return context.all_reduce("SUM", losses), selected

        losses, selected = self._strategy.run(replica_step, (self._distribute(parts),))
        return tf.nest.map_structure(self._of_one, losses), selected

    def _losses(self, logits, batch):
        """Sums over the pictures of a replica, float32 scalars."""
        weights = batch["weights"]
        parts = loss.yolo_loss(
            logits, batch["targets"], batch["boxes"], self._variant, self._box_loss
        )
        sums = {name: tf.reduce_sum(weights * part) for name, part in parts.items()}
        return {
            "loss": tf.add_n(list(sums.values())),
            **sums,
            "unassigned": tf.reduce_sum(weights * batch["unassigned"]),
            "pictures": tf.reduce_sum(weights),
        }

    def _of_one(self, value):
        """A value of one replica of this machine."""
        return self._strategy.experimental_local_results(value)[0]

    def _function(self, step, dataset):
        """Returns a step as one graph for all shapes of a dataset's batches.

        A graph for each shape that comes along would round as the first batches fall:
        otherwise in a training that goes on where another ended.
        """
        parts = [dataset.element_spec] * len(self._strategy.extended.worker_devices)
        return self._functions.setdefault(
            (step, str(parts)), tf.function(step, [parts], autograph=False)
        )

    def on_devices(self, batch):
        """Returns a list of the parts of a batch, each on its device of this machine.

        Not `experimental_distribute_dataset`: the iterators of its devices are tuned
        by a thread that delays the end of each epoch, see `dataset.build_options`.
        """
        devices = self._strategy.extended.worker_devices
        parts = []
        for number, device in enumerate(devices):
            with tf.device("/cpu:0"):  # So that a device gets no more than its part.
                part = _part(batch, number, len(devices))
            with tf.device(device):
                parts.append(tf.nest.map_structure(tf.identity, part))
        return parts

    def _distribute(self, parts):
        """What `on_devices` returns, as `run` of the strategy takes it."""
        return self._strategy.experimental_distribute_values_from_function(
            lambda context: parts[context.replica_id_in_sync_group % len(parts)]
        )

    def _gather(self, value):
        """An array of the values of all devices of this machine."""
        return np.concatenate(self._strategy.experimental_local_results(value))


def _part(batch, index, count):
    """One of `count` even parts of a batch."""
    pictures = len(batch["images"]) // count
    return tf.nest.map_structure(
        lambda tensor: tensor[index * pictures : (index + 1) * pictures], batch
    )


def _empty(model, kept):
    """Releases the memory of a model's variables, but for those that are `kept`'s too.

    A graph with an `all_reduce` in it stays as long as the program, and so would the
    variables that it reads.
    """
    kept = {id(variable) for variable in kept.variables}
    for variable in model.variables:
        if id(variable) not in kept:
            # One a device, where there are several.
            for part in getattr(variable.value, "values", [variable.value]):
                tf.raw_ops.AssignVariableOp(
                    resource=part.handle, value=tf.zeros([0], part.dtype)
                )


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
            name: value if name == "unassigned" else value / pictures
            for name, value in self._sums.items()
            if name != "pictures"
        }
