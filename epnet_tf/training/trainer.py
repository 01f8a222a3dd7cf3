"""What both stages of training share."""

import inspect

import keras
from keras import ops

from epnet_tf.model.states import state_model
from epnet_tf.training.checked import DataCheck
from epnet_tf.training.stage import Stage


class ExitTrainer(Stage):
    """An `EPNet` within a model that is compiled (without a loss) and fitted.

    Labels and pixels are checked as they come in (see `DataCheck`), and callbacks
    such as `EarlyStopping` know which way each metric is better.

    Args:
        model: The `EPNet` that is trained in place.
    """

    def __init__(self, model: keras.Model, **kwargs):
        super().__init__(**kwargs)
        self.built = True  # Its variables are the model's: a checkpoint can be loaded.
        self.model = model
        self.states = state_model(model)
        self._checking = False

    def fit(self, *args, **kwargs):
        """As `keras.Model.fit`."""
        return self.checked(super().fit, args, kwargs)

    def evaluate(self, *args, **kwargs):
        """As `keras.Model.evaluate`."""
        return self.checked(super().evaluate, args, kwargs)

    def train_on_batch(self, *args, **kwargs):
        """As `keras.Model.train_on_batch`."""
        return self.checked(super().train_on_batch, args, kwargs)

    def test_on_batch(self, *args, **kwargs):
        """As `keras.Model.test_on_batch`."""
        return self.checked(super().test_on_batch, args, kwargs)

    def checked(self, method, args, kwargs):
        """Calls what fits or evaluates this model, with its data checked.

        Args:
            method: What is called; it has an argument `x`, and perhaps `y`,
                `validation_data` and `callbacks`, as `keras.Model.fit` has.
            args: Its positional arguments.
            kwargs: Its keyword arguments.

        Returns:
            What the method returns.

        Raises:
            ValueError: If labels are not as they should be.
        """
        if self._checking:  # `fit` evaluates on what has been checked already.
            return method(*args, **kwargs)
        call = inspect.signature(method).bind(*args, **kwargs)
        given, check = call.arguments, DataCheck(self.model.num_classes)
        given["x"] = check(given.get("x"), given.get("y"))
        validation = given.get("validation_data")
        if isinstance(validation, (tuple, list)):
            check(*validation[:2], what="validation ")
        elif validation is not None:
            given["validation_data"] = check(validation, what="validation ")
        self._set_modes(given.get("callbacks"))
        self._checking = True
        try:
            return method(*call.args, **call.kwargs)
        except Exception:
            if check.error is not None:
                raise check.error from None
            raise
        finally:
            self._checking = False

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

    def _set_modes(self, callbacks) -> None:
        """Tells callbacks that are to find out whether a metric should rise or fall.

        Keras knows of the metrics that it is compiled with alone.
        """
        callbacks = getattr(callbacks, "callbacks", callbacks)  # A CallbackList's.
        names = [metric.name for metric in self.metrics]
        for callback in keras.tree.flatten(callbacks):
            if getattr(callback, "mode", None) == "auto":
                name = callback.monitor.removeprefix("val_")
                if name in names:
                    falls = name.startswith(("loss", "mean_cost"))
                    callback.mode = "min" if falls else "max"
