"""The graph of a functional Keras model: its nodes, and nested models laid open."""

from collections.abc import Collection, Iterable, Iterator, Mapping

import keras


@keras.saving.register_keras_serializable("epnet_tf")
class Renamed(keras.layers.Layer):
    """A layer under another name, where its own is taken already.

    Keras wants names that are unique in a model; nested models, laid open, may each
    have a `conv1`. The layer itself, which is its owner's, keeps its name.

    Args:
        layer: The layer or operation; its weights are shared.
        name: The name that it has here.
    """

    def __init__(self, layer, name: str, **kwargs):
        kwargs.setdefault("dtype", getattr(layer, "dtype_policy", None))
        super().__init__(name=name, autocast=False, **kwargs)
        self.layer = layer
        self.built = True  # The layer builds itself when it is called.

    def call(self, inputs, *args, **kwargs):
        """What the layer gives."""
        return self.layer(inputs, *args, **kwargs)

    def get_config(self):
        """The constructor's arguments."""
        layer = keras.saving.serialize_keras_object(self.layer)
        return super().get_config() | {"layer": layer}

    @classmethod
    def from_config(cls, config):
        """Makes the layer from `get_config`'s answer."""
        layer = keras.saving.deserialize_keras_object(config["layer"])
        return cls(**config | {"layer": layer})


def layer_of(node):
    """The layer that a node calls, whatever it is named there."""
    operation = node.operation
    return operation.layer if isinstance(operation, Renamed) else operation


def inline(model: keras.Model, inputs, taken: Collection[str] = ()):
    """Applies a model to new inputs, with every model nested in it laid open.

    The layers are the model's own (weights are shared); only the graph is new. Of
    layers with one name the first keeps it, the next is called `name_2`.

    Args:
        model: A functional or Sequential model.
        inputs: One symbolic tensor.
        taken: Names that are in use.

    Returns:
        The symbolic outputs, reached through layers that are no models themselves.
    """
    named = _with_free_names(operations(model), taken)
    return _run(model.outputs, {id(model.inputs[0]): inputs}, named)


def part(start: keras.KerasTensor, end: keras.KerasTensor, image, name: str):
    """What a graph does between two tensors, as a model of its own.

    Args:
        start: Where it begins.
        end: Where it ends.
        image: The input to begin with instead.
        name: Name of the model.

    Returns:
        A functional model with the graph's own layers.
    """
    return keras.Model(image, _run([end], {id(start): image}, {}), name=name)


def rename(operation, taken: Collection[str]):
    """A layer under a name that is free: itself, or it `Renamed`.

    Args:
        operation: A layer or operation.
        taken: Names that are in use.

    Returns:
        What to call in its place.
    """
    return _with_free_names([operation], taken)[id(operation)]


def operations(model: keras.Model) -> Iterator:
    """Layers and operations of a model and of models nested in it, as they run."""
    for node in ancestors(model.outputs):
        if is_graph(node.operation):
            yield from operations(node.operation)
        elif node.input_tensors:
            yield node.operation


def _with_free_names(found: Iterable, taken: Collection[str]) -> dict:
    """What to call for each operation, by its id, so that no name is there twice."""
    found = {id(operation): operation for operation in found}
    wanted, used, result = {o.name for o in found.values()}, set(taken), {}
    for key, operation in found.items():
        name, number = operation.name, 1
        while name in used or (number > 1 and name in wanted):
            number += 1
            name = f"{operation.name}_{number}"
        used.add(name)
        result[key] = operation if number == 1 else Renamed(operation, name)
    return result


def _run(outputs: Iterable, tensors: dict, named: Mapping) -> list:
    """Calls operations one by one on new symbolic inputs.

    Args:
        outputs: What is to be computed again.
        tensors: Where to start: new tensors by the old ones' ids.
        named: What to call for operations, by their ids, if not themselves.
    """
    tensors = dict(tensors)

    def new(value):
        return tensors.get(id(value), value)

    for node in ancestors(outputs):
        inputs = [tensors.get(id(tensor)) for tensor in node.input_tensors]
        if not inputs or None in inputs:  # Before the start.
            continue
        if is_graph(node.operation):
            inner = node.operation
            starts = {id(a): b for a, b in zip(inner.inputs, inputs, strict=True)}
            made = _run(inner.outputs, starts, named)
        else:
            arguments = node.arguments.args, node.arguments.kwargs
            args, kwargs = keras.tree.map_structure(new, arguments)
            operation = named.get(id(node.operation), node.operation)
            made = keras.tree.flatten(operation(*args, **kwargs))
        tensors |= {id(a): b for a, b in zip(node.outputs, made, strict=True)}
    return [tensors[id(tensor)] for tensor in outputs]


def is_graph(operation) -> bool:
    """Whether a layer is a model that its graph tells all of.

    Functional and Sequential ones are; one whose class overrides `call` is not.
    """
    return (
        isinstance(operation, keras.Model)
        and bool(getattr(operation, "inputs", None))
        and not overrides_call(operation)
    )


def overrides_call(model: keras.Model) -> bool:
    """Whether a model computes something else than Keras makes of its graph."""
    return type(model).call.__module__.partition(".")[0] != "keras"


def producer(tensor: keras.KerasTensor):
    """The node that makes a symbolic tensor."""
    history = tensor._keras_history
    return history.operation._inbound_nodes[history.node_index]


def ancestors(tensors: Iterable[keras.KerasTensor]) -> list:
    """The nodes that some tensors depend on, in an order in which they can run.

    A branch comes whole before the next one starts.

    Args:
        tensors: Symbolic tensors of one graph.

    Returns:
        Nodes; each has `operation`, `input_tensors` and `outputs`.
    """
    ordered, seen = [], set()
    pending = [(producer(t), False) for t in reversed(list(tensors))]
    while pending:
        node, inputs_done = pending.pop()
        if inputs_done:
            ordered.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            pending.append((node, True))
            pending.extend((producer(t), False) for t in reversed(node.input_tensors))
    return ordered
