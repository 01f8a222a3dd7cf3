"""The graph of a functional Keras model: its nodes, and nested models laid open."""

from collections.abc import Iterable

import keras


def inline(model: keras.Model, inputs):
    """Applies a model to new inputs, with every model nested in it laid open.

    The layers are the model's own (weights are shared); only the graph is new.

    Args:
        model: A functional or Sequential model.
        inputs: One symbolic tensor.

    Returns:
        The symbolic output, reached through layers that are no models themselves.
    """

    def call(operation, *args, **kwargs):
        if is_graph(operation):
            return inline(operation, args[0])
        return operation(*args, **kwargs)

    if isinstance(model, keras.Sequential):
        model = keras.Model(model.inputs, model.outputs)
    outputs = model._run_through_graph(
        inputs, operation_fn=lambda operation: operation, call_fn=call
    )
    return keras.tree.flatten(outputs)[0] if len(model.outputs) == 1 else outputs


def is_graph(operation) -> bool:
    """Whether a layer is a model with a graph of its own (functional, Sequential)."""
    return isinstance(operation, keras.Model) and bool(
        getattr(operation, "inputs", None)
    )


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
