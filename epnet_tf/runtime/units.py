"""Units of cost, in words: multiply-adds (MACs), milliseconds, or a user's own."""

MACS, MILLISECONDS = "macs", "ms"


def name(unit: str) -> str:
    """What a unit is called over a column: `MACs`, `ms`."""
    return "MACs" if unit == MACS else unit


def words(unit: str) -> tuple[str, str]:
    """One of a unit and many, in a sentence: `multiply-add` and `multiply-adds`."""
    return ("multiply-add", "multiply-adds") if unit == MACS else (unit, unit)


def shown(cost: float, unit: str) -> str:
    """A cost in a table: `12.30 M` multiply-adds, `0.1235 ms`."""
    return f"{cost / 1e6:.2f} M" if unit == MACS else f"{cost:.4g} {unit}"


def spelled(cost: float, unit: str) -> str:
    """A cost in a sentence: `12.3 M multiply-adds`, `0.123 ms`."""
    if unit == MACS:
        return f"{cost / 1e6:.3g} M {words(unit)[1]}"
    return f"{cost:.3g} {unit}"
