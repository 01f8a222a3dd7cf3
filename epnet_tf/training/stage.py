"""One stage of training: how it is compiled, and the step that every stage takes."""

import keras
import tensorflow as tf
from keras import ops


class Stage(keras.Model):
    """A model that knows what it is trained for: compiled with an optimizer alone.

    A stage says what it computes (`call`), its loss (`compute_loss`), what of it is
    trained (`trainable_weights`) and what it reports (`compute_metrics`). The step is
    the same for all: branch classifiers by their cross-entropies, controllers by the
    exact expected benefit, many β side by side.
    """

    @property
    def trainable_variables(self):
        """As `trainable_weights`, which each stage narrows to what it trains."""
        return self.trainable_weights

    def train_step(self, data):
        """One step: forward, loss, gradients of what is trained, update, metrics.

        Under a distribution strategy, what each replica does with its part of the
        batch; the optimizer sums the gradients.

        Args:
            data: A batch: inputs, what `compute_loss` takes as `y`, and perhaps
                weights of the images.

        Returns:
            The metrics so far, by name.
        """
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = self.compute_loss(x, y, y_pred, sample_weight, training=True)
            # In mixed precision, so that small gradients do not vanish.
            scaled_loss = self.optimizer.scale_loss(loss)
        weights = self.trainable_weights
        gradients = tape.gradient(scaled_loss, weights)
        if isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer):
            gradients = _overflowing_together(gradients)
        self.optimizer.apply(self.adjusted(gradients), weights)
        self._report_loss(loss, x)
        return self.compute_metrics(x, y, y_pred, sample_weight)

    def test_step(self, data):
        """Loss and metrics of a batch, as `train_step` takes it; nothing is trained."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        y_pred = self(x, training=False)
        loss = self.compute_loss(x, y, y_pred, sample_weight, training=False)
        self._report_loss(loss, x)
        return self.compute_metrics(x, y, y_pred, sample_weight)

    def adjusted(self, gradients: list) -> list:
        """The gradients of `trainable_weights` as the optimizer gets them: as is."""
        return gradients

    def mean_loss(self, losses, sample_weight):
        """Mean of the images' (weighted) losses; each replica gives its share.

        Args:
            losses: float [..., b].
            sample_weight: Weights of the images, [b] or [b, 1], or None.

        Returns:
            float [...].
        """
        if sample_weight is not None:
            losses = losses * ops.reshape(ops.cast(sample_weight, "float32"), [-1])
        return ops.mean(losses, axis=-1) / num_replicas()

    def compile(
        self,
        optimizer="rmsprop",
        loss=None,
        loss_weights=None,
        metrics=None,
        weighted_metrics=None,
        **kwargs,
    ):
        """As `keras.Model.compile`, without loss and metrics: a stage has its own.

        Args:
            optimizer: As there.
            loss: None, as the next three.
            loss_weights: None.
            metrics: None.
            weighted_metrics: None.
            **kwargs: As there.

        Raises:
            ValueError: If a loss or metrics are given.
        """
        refused = {
            "loss": loss,
            "loss_weights": loss_weights,
            "metrics": metrics,
            "weighted_metrics": weighted_metrics,
        }
        for name, value in refused.items():
            if value is not None:
                raise ValueError(
                    f"Expected compile without {name}: {type(self).__name__} has its "
                    f"own loss and metrics. Received: {name}={value!r}."
                )
        super().compile(optimizer, **kwargs)

    def compile_from_config(self, config):
        """Compiles a stage that is loaded from a file as it was when it was saved."""
        # Keras leaves out models with a `compile` of their own.
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def _report_loss(self, loss, x):
        mean = next(metric for metric in self.metrics if metric.name == "loss")
        images = ops.shape(keras.tree.flatten(x)[0])[0]
        mean.update_state(loss * num_replicas(), sample_weight=images)


def num_replicas() -> int:
    """Number of devices that share a batch."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def _overflowing_together(gradients: list) -> list:
    """Gradients that are not finite on all replicas if they are not on one.

    Keras decides on each replica, before it sums, whether to leave out a step: one that
    does alone goes another way than the others, or lets them wait for ever.
    """
    if num_replicas() == 1:
        return gradients
    known = [gradient for gradient in gradients if gradient is not None]
    finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(g)) for g in known])
    overflows = tf.distribute.get_replica_context().all_reduce(
        "SUM", tf.cast(~finite, "float32")
    )
    spoil = tf.where(overflows > 0, float("nan"), 0.0)
    return [g if g is None else g + tf.cast(spoil, g.dtype) for g in gradients]
