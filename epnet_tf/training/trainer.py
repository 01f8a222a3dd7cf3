"""What both stages of training share."""

import keras
import tensorflow as tf
from keras import ops

from epnet_tf.model.states import state_model


class ExitTrainer(keras.Model):
    """An `EPNet` within a model that is compiled (without a loss) and fitted.

    Args:
        model: The `EPNet` that is trained in place.
    """

    def __init__(self, model: keras.Model, **kwargs):
        super().__init__(**kwargs)
        self.built = True  # Its variables are the model's: a checkpoint can be loaded.
        self.model = model
        self.states = state_model(model)

    @property
    def trainable_variables(self):
        """As `trainable_weights`, which each stage narrows to what it trains."""
        return self.trainable_weights

    def logits(self, y_pred) -> list:
        """The logits of all exits: N arrays [b, classes]."""
        exits = range(1, self.model.num_exits + 1)
        return [ops.cast(y_pred[f"logits_{i:02d}"], "float32") for i in exits]

    def targets(self, y):
        """Labels as one-hot rows.

        Args:
            y: Integer labels [b] or [b, 1], or one-hot (or soft) ones [b, classes].

        Returns:
            float32 [b, classes].
        """
        y = ops.convert_to_tensor(y)
        if len(y.shape) == 2 and y.shape[1] == self.model.num_classes:
            return ops.cast(y, "float32")
        y = ops.cast(ops.reshape(y, [-1]), "int32")
        return ops.one_hot(y, self.model.num_classes)

    def correct(self, y, logits) -> list:
        """Whether each exit names the right class: N arrays float32 [b]."""
        labels = ops.argmax(self.targets(y), axis=-1)
        return [ops.cast(ops.argmax(z, axis=-1) == labels, "float32") for z in logits]

    def mean_loss(self, losses, sample_weight):
        """Mean of the images' (weighted) losses; each replica gives its share."""
        if sample_weight is not None:
            losses = losses * ops.reshape(ops.cast(sample_weight, "float32"), [-1])
        return ops.mean(losses) / tf.distribute.get_strategy().num_replicas_in_sync

    def get_config(self):
        """The constructor's arguments."""
        return {
            "name": self.name,
            "model": keras.saving.serialize_keras_object(self.model),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Makes the trainer from `get_config`'s answer."""
        model = keras.saving.deserialize_keras_object(
            config["model"], custom_objects=custom_objects
        )
        return cls(**{**config, "model": model})
