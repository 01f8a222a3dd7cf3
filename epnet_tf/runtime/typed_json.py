"""Dataclasses as JSON and back, with messages that name the key that is wrong."""

import dataclasses
import types
import typing


def encode(value):
    """Makes what `json.dumps` takes of dataclasses, tuples, strings and numbers.

    Fields that have a default are left out when they are None.
    """
    if dataclasses.is_dataclass(value):
        pairs = {f.name: (f, getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {
            name: encode(content)
            for name, (field, content) in pairs.items()
            if content is not None or field.default is dataclasses.MISSING
        }
    if isinstance(value, tuple):
        return [encode(item) for item in value]
    return value


def decode(kind, value, where: str):
    """Makes a dataclass of JSON, checked against its type hints.

    Keys that the dataclass does not know are passed over.

    Args:
        kind: A dataclass, a tuple type, an optional type, or str, int, float or bool.
        value: From JSON.
        where: What the value is called in messages.

    Raises:
        ValueError: If the value is not of that kind.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        return None if value is None else decode(arguments[0], value, where)
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):
        return _decode_fields(kind, value, where)
    if origin is tuple and isinstance(value, list):
        if arguments[-1] is ... or len(arguments) == len(value):
            items = enumerate(value)
            return tuple(decode(arguments[0], v, f"{where}[{i}]") for i, v in items)
    # In Python, True is an int.
    if kind is float and type(value) in (int, float):
        return float(value)
    if kind in (int, str, bool) and type(value) is kind:
        return value
    raise ValueError(f"{where} is not as expected. Received: {value!r:.80}")


def _decode_fields(kind, value: dict, where: str):
    hints = typing.get_type_hints(kind)
    decoded = {}
    for field in dataclasses.fields(kind):
        if field.name in value:
            decoded[field.name] = decode(
                hints[field.name], value[field.name], f"{where}: {field.name}"
            )
        elif field.default is dataclasses.MISSING:
            raise ValueError(f"{where}: {field.name} is missing.")
    return kind(**decoded)
