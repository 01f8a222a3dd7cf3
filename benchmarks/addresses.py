"""Addresses for several workers on this machine."""

import contextlib
import random
import socket

# Below the ports that systems give out by themselves: one of those may be given to
# another process before the worker that it was meant for has started.
_PORTS = range(20_000, 32_768)


def free_addresses(count: int) -> tuple[str, ...]:
    """So many addresses `127.0.0.1:port` that nobody listens at, each another."""
    # Not from a seed: others who draw at the same time are to get others.
    ports = random.SystemRandom().sample(_PORTS, len(_PORTS))
    free = filter(_is_free, ports)
    return tuple(f"127.0.0.1:{next(free)}" for _ in range(count))


def _is_free(port: int) -> bool:
    with contextlib.suppress(OSError):
        socket.create_server(("127.0.0.1", port)).close()
        return True
    return False
