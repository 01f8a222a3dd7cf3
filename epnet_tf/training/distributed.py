"""A stage on several devices or hosts: TensorFlow's strategies around the one step."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import keras
import numpy as np
import tensorflow as tf

from epnet_tf.data.pipeline import replicas_of
from epnet_tf.data.streams import Images, StreamedImages, gather, parallel_calls
from epnet_tf.training.trainer import ExitTrainer

STRATEGIES = ("none", "mirrored", "multi_worker")

# Between the seeds of replicas; those of a model's own generators may be neighbours.
_STREAMS_APART = 1_000_003

# What `fit_distributed` is given: batches for all, or what makes a worker's share.
Data: TypeAlias = (
    tf.data.Dataset | Callable[[tf.distribute.InputContext], tf.data.Dataset]
)


def strategy_for(name: str) -> tf.distribute.Strategy:
    """The strategy by its name on the command line.

    Args:
        name: `none`; `mirrored`, all GPUs of this host (or, without one, its logical
            CPUs); or `multi_worker`, all devices of all workers in TF_CONFIG, which
            has to be made before TensorFlow computes anything.
    """
    if name == "none":
        return tf.distribute.get_strategy()
    if name == "mirrored":
        return tf.distribute.MirroredStrategy()
    return tf.distribute.MultiWorkerMirroredStrategy()


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process is the one that writes: the only one, or the first."""
    resolver = strategy.cluster_resolver
    if resolver is None:
        return True
    first = "chief" if "chief" in resolver.cluster_spec().jobs else "worker"
    return (resolver.task_type, resolver.task_id) == (first, 0)


def fit_distributed(
    trainer: ExitTrainer,
    dataset: Data,
    *,
    steps_per_epoch: int | None = None,
    epochs: int = 1,
    initial_epoch: int = 0,
    validation_data: tuple[Images, np.ndarray] | None = None,
    validation_batch_size: int = 256,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose="auto",
) -> keras.callbacks.History:
    """Fits a stage on all devices of the strategy that it was made under.

    As `keras.Model.fit`, which cannot do it on several hosts. Every replica takes the
    trainer's own `train_step` on an equal share of each global batch, and gradients are
    summed, so that weights go as they would on one device, where nothing depends on
    what else is in a share. What does: batch normalization takes the statistics of the
    replica's share, but for layers made with `synchronized=True`; moving averages are
    averaged over the replicas after each epoch. Replicas draw dropout and β apart.

    The learning rate belongs to the global batch. If more devices make that larger by a
    factor, the usual rule is to raise the rate of SGD by the same, with warm-up.

    Usage:

    ```python
    strategy = tf.distribute.MirroredStrategy()
    with strategy.scope():
        trainer = epnet_tf.ClassifierTrainer(epnet_tf.EPNet(backbone, 10))
        trainer.compile(keras.optimizers.SGD(0.1, momentum=0.9))
    batches = tf.data.Dataset.from_tensor_slices((images, labels))
    batches = batches.shuffle(10_000).batch(256, drop_remainder=True)
    fit_distributed(trainer, batches, epochs=10)
    ```

    Args:
        trainer: The compiled stage, made within the strategy's scope. Under
            `MultiWorkerMirroredStrategy`, every worker makes the same call.
        dataset: Global batches of one size, which the replicas divide, the same ones
            on every worker; or a function that is given a `tf.distribute.InputContext`
            and returns batches for one replica, those of this worker's replicas in
            turn. The latter lets each worker read its own shard only
            (`epnet_tf.data.training_pipeline` takes the context; `tf.data` has
            `shard`).
        steps_per_epoch: Global batches in an epoch; if None, all of the dataset.
        epochs: The epoch to end before, counted from 0.
        initial_epoch: The epoch to begin with; endless datasets begin there.
        validation_data: Images (or states) and labels, at least one for each replica,
            which all workers have; each evaluates its share.
        validation_batch_size: Images that one replica evaluates at a time.
        callbacks: As in `keras.Model.fit`, on every worker: those that write should be
            given to the chief alone (`is_chief`), but for those that save metrics'
            states with the model, which all workers have to read together. Logs of a
            batch are those of the first replica here; logs of an epoch are of all.
        verbose: As in `keras.Model.fit`; workers but the chief show nothing.

    Returns:
        The `History`, the same on every worker.

    Raises:
        ValueError: If batches cannot be shared evenly, their number is unknown, labels
            are not as they should be, or the trainer was made under no such strategy.
    """

    def fit(x, validation_data, callbacks):
        loop = _Loop(trainer)
        return loop.fit(
            x,
            steps_per_epoch,
            range(initial_epoch, epochs),
            loop.shares(validation_data, validation_batch_size),
            callbacks,
            verbose if is_chief(trainer.distribute_strategy) else 0,
        )

    return trainer.checked(fit, (dataset, validation_data, list(callbacks)), {})


class _Loop:
    """Epochs and steps of a trainer under its strategy."""

    def __init__(self, trainer: ExitTrainer):
        self.trainer = trainer
        self.strategy = strategy = trainer.distribute_strategy
        self.replicas = strategy.num_replicas_in_sync
        trainer._assert_compile_called("fit_distributed")
        with strategy.scope():  # Not within the first step, where it cannot be made.
            if not trainer.optimizer.built:
                trainer.optimizer.build(trainer.trainable_variables)
        self.train = self._on_all(trainer.train_step)
        self.test = self._on_all(trainer.test_step)
        self.average_statistics = self._averaging()
        self.total = tf.function(
            lambda value: strategy.reduce(
                "SUM", strategy.run(tf.identity, (value,)), axis=None
            )
        )

    def fit(self, data, steps, epochs, validation, callbacks, verbose):
        """All epochs; see `fit_distributed`."""
        trainer = self.trainer
        batches = self._distributed(data)
        endless = steps is not None
        steps = steps or self._count(data)
        callbacks = keras.callbacks.CallbackList(
            callbacks,
            add_history=True,
            add_progbar=verbose != 0,
            verbose=verbose,
            epochs=epochs.stop,
            steps=steps,
            model=trainer,
        )
        trainer.stop_training = False
        callbacks.on_train_begin()
        logs = None
        iterator = iter(batches)
        with self._drawing_apart():
            for epoch in epochs:
                if not endless and epoch > epochs.start:
                    iterator = iter(batches)
                callbacks.on_epoch_begin(epoch)
                logs = self._epoch(iterator, steps, callbacks)
                self.average_statistics()
                if validation is not None:
                    logs |= self._evaluate(*validation, callbacks)
                callbacks.on_epoch_end(epoch, logs)
                if self._stopped():
                    break
        if len(epochs):
            trainer.optimizer.finalize_variable_values(trainer.trainable_weights)
        callbacks.on_train_end(logs)
        return trainer.history

    def shares(self, validation_data, batch_size: int):
        """Validation data for each replica, and the number of its batches."""
        if validation_data is None:
            return None
        x, y = validation_data
        count = len(y)
        if count < self.replicas:
            raise ValueError(
                f"Expected validation data for {self.replicas} replicas, an image for "
                f"each. Received: {count}."
            )
        # As many batches for each, none of them empty, all images once.
        steps = -(-count // (self.replicas * batch_size))
        ends = np.linspace(0, count, steps * self.replicas + 1).astype(int)

        def batches(context):
            first, last = replicas_of(context)
            own = [
                (ends[step * self.replicas + k], ends[step * self.replicas + k + 1])
                for step in range(steps)
                for k in range(first, last)
            ]
            starts, stops = np.transpose(own)

            with tf.device("CPU:0"):
                whole = keras.tree.map_structure(
                    lambda a: a if isinstance(a, StreamedImages) else tf.constant(a),
                    (x, y),
                )

            def batch(start, stop):
                index = tf.range(start, stop)
                return keras.tree.map_structure(lambda a: gather(a, index), whole)

            return tf.data.Dataset.from_tensor_slices((starts, stops)).map(
                batch, num_parallel_calls=parallel_calls(x)
            )

        return self.strategy.distribute_datasets_from_function(batches), steps

    def _on_all(self, step):
        """A step on every replica; of what it returns, the first one's here.

        A function within a function, as in Keras's `fit`: so the graph is that one's,
        and on one device the results are, to the bit.
        """

        @tf.autograph.experimental.do_not_convert
        def on_batch(batch):
            logs = self.strategy.run(step, args=(batch,))
            return {
                name: self.strategy.experimental_local_results(value)[0]
                for name, value in logs.items()
            }

        @tf.autograph.experimental.do_not_convert
        def on_next(iterator):
            return on_batch(next(iterator))

        if self.trainer.run_eagerly:
            return on_next
        on_batch = tf.function(
            on_batch, reduce_retracing=True, jit_compile=self.trainer.jit_compile
        )
        return tf.function(on_next, reduce_retracing=True)

    def _epoch(self, iterator: Iterator, steps: int, callbacks) -> dict:
        self.trainer.reset_metrics()
        for step in range(steps):
            callbacks.on_train_batch_begin(step)
            logs = self.train(iterator)
            callbacks.on_train_batch_end(step, logs)
            # On several hosts all have to take the same number of steps.
            if self.trainer.stop_training and self.strategy.cluster_resolver is None:
                break
        return self._metrics()

    def _evaluate(self, batches, steps: int, callbacks) -> dict:
        self.trainer.reset_metrics()
        callbacks.on_test_begin()
        iterator = iter(batches)
        for step in range(steps):
            callbacks.on_test_batch_begin(step)
            logs = self.test(iterator)
            callbacks.on_test_batch_end(step, logs)
        logs = self._metrics()
        callbacks.on_test_end(logs)
        return {f"val_{name}": value for name, value in logs.items()}

    def _metrics(self) -> dict[str, float]:
        """The metrics over all replicas of all hosts."""
        found = self.trainer.get_metrics_result()
        return {name: float(value) for name, value in found.items()}

    def _stopped(self) -> bool:
        """Whether training stops here: if it stops on any host, on all."""
        return bool(self.total(tf.constant(float(self.trainer.stop_training))))

    def _averaging(self):
        """What makes moving averages of batch statistics the same for all replicas."""
        averages = [
            variable.value
            for layer in self.trainer._flatten_layers()
            if isinstance(layer, keras.layers.BatchNormalization)
            for variable in (layer.moving_mean, layer.moving_variance)
        ]

        def average():
            # In double precision the mean of what is equal is just that.
            means = tf.distribute.get_replica_context().all_reduce(
                "MEAN", [tf.cast(variable, "float64") for variable in averages]
            )
            for variable, mean in zip(averages, means, strict=True):
                variable.assign(tf.cast(mean, variable.dtype))

        if self.replicas == 1 or not averages:
            return lambda: None
        return tf.function(lambda: self.strategy.run(average))

    @contextlib.contextmanager
    def _drawing_apart(self) -> Iterator[None]:
        """Gives random generators another state on each replica.

        The first one's stays: it is the one that is saved.
        """
        states = [
            variable.value
            for variable in self.trainer.non_trainable_variables
            if "int" in variable.dtype
        ]

        def move(direction: int):
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            offset = tf.cast(replica, "int64") * direction * _STREAMS_APART
            for state in states:
                state.assign_add(tf.cast(tf.stack([offset, 0]), state.dtype))

        if self.replicas == 1 or not states:
            yield
            return
        move_all = tf.function(self.strategy.run)
        move_all(move, args=(1,))
        yield
        move_all(move, args=(-1,))

    def _distributed(self, data: Data):
        """The data as the strategy takes it.

        Raises:
            ValueError: If batches cannot be shared evenly.
        """
        if not isinstance(data, tf.data.Dataset):
            return self.strategy.distribute_datasets_from_function(data)
        size = keras.tree.flatten(data.element_spec)[0].shape[0]
        if self.replicas > 1 and (size is None or size % self.replicas):
            raise ValueError(
                f"Expected batches of one size that {self.replicas} replicas can "
                "share evenly (batch(..., drop_remainder=True)). Received: "
                f"{'batches of any size' if size is None else f'batches of {size}'}."
            )
        options = tf.data.Options()
        options.experimental_distribute.auto_shard_policy = (
            tf.data.experimental.AutoShardPolicy.DATA
        )
        return self.strategy.experimental_distribute_dataset(data.with_options(options))

    def _count(self, data: Data) -> int:
        """The number of batches.

        Raises:
            ValueError: If it is unknown.
        """
        count = data.cardinality() if isinstance(data, tf.data.Dataset) else -1
        if count < 1:
            raise ValueError(
                "Expected steps_per_epoch for a dataset that is endless or whose "
                "number of batches is unknown. Received: None."
            )
        return int(count)
