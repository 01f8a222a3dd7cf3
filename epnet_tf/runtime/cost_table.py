"""What leaving through each exit costs on a device, read from a file.

It takes the place of multiply-adds: controllers are trained for it, exits are selected
by it, budgets are in it, and β is points per unit of it.
"""

import dataclasses
import itertools
import math
import os
from collections.abc import Sequence

from epnet_tf.runtime import device_report, typed_json, units

FORMAT = "epnet-costs"
VERSION = 1


@dataclasses.dataclass(frozen=True)
class CostTable:
    """What leaving through each exit of a network costs, in another unit than MACs.

    Attributes:
        unit: `ms`, or the user's own word, such as `mJ`.
        layers: The layer of each exit, to tell which network the costs are for.
        costs: Of leaving through each exit, all that runs until it has answered
            included; above 0, and no exit is cheaper than one before it.
        full: Of the plain network, without early exits.
        p90: What nine of ten images that leave through each exit cost at most, where
            a clock measured it.

    Raises:
        ValueError: If it is not so.
    """

    unit: str
    layers: tuple[str, ...]
    costs: tuple[float, ...]
    full: float
    p90: tuple[float, ...] | None = None

    def __post_init__(self):
        fault = fault_of(self.unit, self.costs, self.full, len(self.layers))
        if self.p90 is not None and len(self.p90) != len(self.layers):
            fault = f"{len(self.p90)} values in p90 for {len(self.layers)} exits"
        if fault:
            raise ValueError(
                "Expected a cost above 0 for each exit, none below that of an exit "
                f"before it, and the plain network's. Received: {fault}."
            )


def fault_of(
    unit: str, costs: Sequence[float], full: float, num_exits: int
) -> str | None:
    """What is wrong with costs in another unit than MACs; None if nothing is.

    Args:
        unit: Their unit.
        costs: Of leaving through each exit.
        full: Of the plain network.
        num_exits: The number of exits N.
    """
    if unit.strip() in ("", units.MACS):
        return f"the unit '{unit}', which is not one that costs are given in"
    if len(costs) != num_exits or not num_exits:
        return f"{len(costs)} costs for {num_exits} exits"
    for number, cost in enumerate((*costs, full), start=1):
        if not 0 < cost < math.inf:
            where = f"exit {number}" if number <= num_exits else "the plain network"
            return f"a cost of {cost:g} {unit} for {where}"
    for number, (before, cost) in enumerate(itertools.pairwise(costs), 1):
        if cost < before:
            return f"{cost:g} {unit} for exit {number + 1} after {before:g} {unit}"
    return None


def read_costs(path: str | os.PathLike) -> CostTable:
    """Reads what leaving through each exit costs.

    Args:
        path: What the app's benchmark exports, or `python -m epnet_tf.measure_costs`
            writes: the sums of its segments' medians are the costs, in milliseconds,
            and where the plain network was not timed, the last exit stands for it. Or a
            JSON file of one's own: `{"format": "epnet-costs", "version": 1, "unit":
            "mJ", "layers": […], "costs": […], "full": …}`.

    Returns:
        The `CostTable`.

    Raises:
        ValueError: If this is no such file, or costs are missing, not above 0, or
            decrease.
        OSError: If the file cannot be read.
    """
    content, found = device_report.read_json(path)
    if found == device_report.FORMAT:
        return _of_report(device_report.report_of(content, found, path), path)
    if found != FORMAT or content.get("version") != VERSION:
        raise ValueError(
            f"Expected a file of format '{FORMAT}', version {VERSION}, or "
            f"'{device_report.FORMAT}'. Received: {found} in {path}"
        )
    try:
        return typed_json.decode(CostTable, content, "costs")
    except ValueError as error:
        raise ValueError(f"{path} cannot be used: {error}") from None


def _of_report(report: device_report.DeviceReport, path) -> CostTable:
    costs = tuple(report.exit_costs_ms.tolist())
    try:
        return CostTable(
            units.MILLISECONDS,
            report.layers,
            costs,
            report.network.median if report.network else costs[-1],
            tuple(latency.p90 for latency in report.reaching),
        )
    except ValueError as error:
        raise ValueError(f"{path} cannot be used: {error}") from None
