"""The workers of one run on several hosts: who they are, and that all agree and live.

TensorFlow's collectives may wait for ever for a worker that is gone, and compute
nonsense with one that runs other code. So workers meet before TensorFlow's servers
start, and hold a connection for as long as they run: the operating system closes it
when a process dies, however it dies.
"""

import contextlib
import dataclasses
import errno
import json
import os
import queue
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import NoReturn

# Pods of one job start minutes apart while their images are pulled.
JOIN_SECONDS = 600.0

# A host without power closes nothing: asked after 15 s of silence, given up after 45.
_KEEPALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}

# How long processes may take to end after they have said that they will.
_GRACE_SECONDS = 30.0


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The workers of a run, and which of them this process is.

    Attributes:
        workers: Addresses `host:port`, the chief's first.
        index: This process's place among them.
    """

    workers: tuple[str, ...]
    index: int

    @property
    def is_chief(self) -> bool:
        """Whether this worker is the one that writes what all have computed."""
        return self.index == 0

    def name(self, index: int) -> str:
        """What messages call a worker."""
        return f"worker {index} ({self.workers[index]})"


def read_tf_config(environment: Mapping[str, str] = os.environ) -> Cluster:
    """Reads the environment variable TF_CONFIG, as TensorFlow documents it.

    Args:
        environment: The environment's variables. The cluster has tasks of the type
            `worker`, perhaps one `chief` before them, and no others.

    Returns:
        The `Cluster`.

    Raises:
        ValueError: If the variable is missing or does not say that.
    """
    text = environment.get("TF_CONFIG")
    if not text:
        raise ValueError(
            "Expected the environment variable TF_CONFIG, with the cluster's workers "
            "and this process's task. Received: none."
        )
    try:
        config = json.loads(text)
    except ValueError:
        raise ValueError(f"Expected TF_CONFIG in JSON. Received: {text}") from None
    tasks, task = _part(config, "cluster", text), _part(config, "task", text)
    are_lists = all(isinstance(addresses, list) for addresses in tasks.values())
    known = are_lists and set(tasks) <= {"chief", "worker"}
    if not known or len(tasks.get("chief", "1")) != 1:
        raise ValueError(
            "Expected in TF_CONFIG lists of workers and at most one chief. "
            f"Received: {json.dumps(tasks)}"
        )
    addresses = {
        (kind, i): address
        for kind in ("chief", "worker")
        for i, address in enumerate(tasks.get(kind, []))
    }
    for address in addresses.values():
        _, colon, port = str(address).rpartition(":")
        if not (colon and port.isdigit() and 0 < int(port) < 65536):
            raise ValueError(
                f"Expected in TF_CONFIG addresses HOST:PORT. Received: {address!r}."
            )
    if len(set(addresses.values())) < len(addresses):
        raise ValueError(
            "Expected in TF_CONFIG another address for each worker. "
            f"Received: {json.dumps(tasks)}"
        )
    # Some schedulers write numbers as strings.
    index = str(task.get("index"))
    own = (str(task.get("type")), int(index) if index.isdigit() else -1)
    if own not in addresses:
        raise ValueError(
            "Expected in TF_CONFIG a task with the type and index of one in the "
            f"cluster, {json.dumps(tasks)}. Received: {json.dumps(task)}"
        )
    return Cluster(tuple(addresses.values()), list(addresses).index(own))


def _part(config, name: str, text: str) -> dict:
    part = config.get(name) if isinstance(config, dict) else None
    if not isinstance(part, dict) or not part:
        raise ValueError(f"Expected in TF_CONFIG a '{name}'. Received: {text}")
    return part


class Team:
    """The workers of a run, met and watched over while a `with` block lasts.

    Entering it waits for all workers and compares what they are about to do. Within
    it, a worker that ends before its time ends all others with a sentence and exit
    code 1. Leaving it waits for the others.

    Usage:

    ```python
    with Team(read_tf_config(), {"learning_rate": "0.1"}) as team:
        ...
        team.agree("the epochs done", epoch)
    ```

    Args:
        cluster: The workers.
        facts: What must be the same for all, by names that messages use.
        seconds: How long to wait for all to come.
    """

    def __init__(
        self,
        cluster: Cluster,
        facts: Mapping[str, str],
        seconds: float = JOIN_SECONDS,
    ):
        self.cluster = cluster
        self.facts = dict(facts)
        self.seconds = seconds
        self._links: dict[int, _Link] = {}

    def __enter__(self) -> "Team":
        """Waits for all workers.

        Raises:
            ValueError: If they do not all come, or not with the same facts.
        """
        hello = {
            "index": self.cluster.index,
            "workers": list(self.cluster.workers),
            "facts": self.facts,
        }
        with _own_port(self.cluster) as server:
            if self.cluster.is_chief:
                self._gather(server, hello)
        if not self.cluster.is_chief:
            self._links[0] = self._call_chief(hello)
        for index, link in self._links.items():
            link.watch(index, self._lost)
        print(f"All {len(self.cluster.workers)} workers have met.", file=sys.stderr)
        return self

    def __exit__(self, kind, error, traceback) -> None:
        if error is not None:
            # A collective fails when a worker is gone: then that is what to tell.
            if not isinstance(error, ValueError | KeyboardInterrupt):
                time.sleep(2.0)
            reason = " ".join(str(error).split())[:300]
            self._tell({"end": reason, "index": self.cluster.index})
            return
        self.agree("that the run is done", True)
        for link in self._links.values():
            link.done = True
        if self.cluster.is_chief:
            # TensorFlow's coordinator is here: the chief is the last to go.
            self._tell({"bye": True})
            for link in self._links.values():
                link.thread.join(_GRACE_SECONDS)
        else:
            self._links[0].receive()  # The chief's farewell.

    def agree(self, what: str, value) -> None:
        """Waits until all workers have come here, and compares what they bring.

        Args:
            what: What the value is, in the message.
            value: Any JSON value.

        Raises:
            ValueError: If it is not the same for all.
        """
        if not self.cluster.is_chief:
            self._tell({"value": value})
            verdict = self._links[0].receive()
        else:
            values = {i: link.receive()["value"] for i, link in self._links.items()}
            other = next((i for i, v in values.items() if v != value), None)
            verdict = {"error": ""}
            if other is not None:
                verdict["error"] = (
                    f"Expected {what} to be the same for all workers, {value} as for "
                    f"{self.cluster.name(0)}. Received: {values[other]} for "
                    f"{self.cluster.name(other)}."
                )
                self._part()
            self._tell(verdict)
        if verdict["error"]:
            raise ValueError(verdict["error"])

    def _gather(self, server: socket.socket, hello: dict) -> None:
        """Chief: takes the others' calls, and answers all when all have called."""
        deadline = time.monotonic() + self.seconds
        error = ""
        while len(self._present()) < len(self.cluster.workers) - 1:
            server.settimeout(max(deadline - time.monotonic(), 0.01))
            try:
                link = _Link(server.accept()[0])
            except TimeoutError:
                error = error or self._missing()
                break
            try:
                link.socket.settimeout(10.0)
                other = link.read()
                index = other["index"]
                difference = self._difference(hello, other)
            except (OSError, ValueError, KeyError, TypeError):
                continue  # Somebody else, or one that died in between and will return.
            if index in self._present():
                difference = (
                    "Expected in TF_CONFIG another task for each process. "
                    f"Received: two for {self.cluster.name(index)}."
                )
                link.send({"error": difference})
            else:
                self._links[index] = link
            if difference and not error:
                error = difference
                # Those who are about to come are to hear of it too.
                deadline = min(deadline, time.monotonic() + _GRACE_SECONDS)
        self._tell({"error": error})
        if error:
            self._part()
            raise ValueError(error)

    def _present(self) -> set[int]:
        """Chief: which others have come and not died meanwhile."""
        return {i for i, link in self._links.items() if link.is_open()}

    def _missing(self) -> str:
        """Who has not come, or has gone again, as a sentence."""
        count, present = len(self.cluster.workers), self._present()
        missing = [self.cluster.name(i) for i in range(1, count) if i not in present]
        return (
            f"Expected all {count} workers within {self.seconds:g} s. "
            f"Received: no word from {', '.join(missing)}."
        )

    def _difference(self, own: dict, other: dict) -> str:
        """What a worker has otherwise than the chief, as a sentence."""
        if other["workers"] != own["workers"]:
            return (
                "Expected the same cluster in TF_CONFIG of all workers. Received: "
                f"{json.dumps(own['workers'])} and {json.dumps(other['workers'])}."
            )
        mine, theirs = own["facts"], other["facts"]
        for key in sorted(mine.keys() | theirs.keys()):
            if mine.get(key) != theirs.get(key):
                return (
                    f"Expected the same {key} for all workers, "
                    f"{mine.get(key)} as for {self.cluster.name(0)}. Received: "
                    f"{theirs.get(key)} for {self.cluster.name(other['index'])}."
                )
        return ""

    def _call_chief(self, hello: dict) -> "_Link":
        """Others: calls the chief until it answers."""
        host, _, port = self.cluster.workers[0].rpartition(":")
        deadline = time.monotonic() + self.seconds
        while True:
            try:
                left = max(deadline - time.monotonic(), 0.01)
                link = _Link(socket.create_connection((host, int(port)), min(left, 10)))
                link.send(hello)
                # The chief tells who is late; it is not to be left before.
                link.socket.settimeout(left + 10.0)
                answer = link.read()
                break
            except (OSError, ValueError):
                if time.monotonic() > deadline:
                    raise ValueError(
                        f"Expected {self.cluster.name(0)}, the chief, to answer within "
                        f"{self.seconds:g} s. Received: nothing."
                    ) from None
                time.sleep(0.2)
        if answer["error"]:
            link.socket.close()
            raise ValueError(answer["error"])
        return link

    def _lost(self, index: int, reason: str) -> NoReturn:
        """Ends this process, since another has ended."""
        if self.cluster.is_chief:
            self._tell({"end": reason, "index": index})
        because = f": {reason.rstrip('.')}." if reason else "."
        print(
            f"error: {self.cluster.name(index)} ended before the others{because} The "
            "same command on all workers goes on from the last checkpoint.",
            file=sys.stderr,
            flush=True,
        )
        # The main thread may be in a collective that never returns.
        os._exit(1)

    def _tell(self, message: dict) -> None:
        for link in self._links.values():
            with contextlib.suppress(OSError):
                link.send(message)

    def _part(self) -> None:
        """All go their own ways, each with the same error."""
        for link in self._links.values():
            link.done = True


def agree(team: Team | None, what: str, value) -> None:
    """Waits for all workers, if there are several, and compares: see `Team.agree`."""
    if team is not None:
        team.agree(what, value)


class _Link:
    """A connection to another worker: lines of JSON."""

    def __init__(self, connection: socket.socket):
        self.socket = connection
        self.lines = connection.makefile("rb")
        self.received: queue.Queue[dict] = queue.Queue()
        self.done = False
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def send(self, message: dict) -> None:
        self.socket.sendall(json.dumps(message).encode() + b"\n")

    def read(self) -> dict:
        """The next message; raises an OSError at the end of the connection."""
        line = self.lines.readline()
        if not line.endswith(b"\n"):
            raise ConnectionError(errno.ECONNRESET, "Connection ended")
        return json.loads(line)

    def is_open(self) -> bool:
        """Whether the other is still there, of whom no message is waited for."""
        self.socket.settimeout(0.0)
        try:
            return self.socket.recv(1, socket.MSG_PEEK) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False
        finally:
            self.socket.settimeout(10.0)

    def receive(self) -> dict:
        """Waits for the next message that is not about an end; {} after the last."""
        return self.received.get()

    def watch(self, index: int, lost: Callable[[int, str], None]) -> None:
        """Reads on in a thread; calls `lost` with who ended too early, and why."""
        self.socket.settimeout(None)
        self.thread = threading.Thread(target=self._watch, args=[index, lost])
        self.thread.daemon = True
        self.thread.start()

    def _watch(self, index: int, lost: Callable[[int, str], None]) -> None:
        with contextlib.suppress(OSError):
            while True:
                message = self.read()
                # What ends is not lost, whoever is first to close the connection.
                self.done |= bool(message.get("error") or message.get("bye"))
                if "end" not in message:
                    self.received.put(message)
                elif not self.done:
                    lost(message["index"], message["end"])
        if not self.done:
            lost(index, "")
        self.received.put({})


@contextlib.contextmanager
def _own_port(cluster: Cluster):
    """Listens at this worker's address: TensorFlow's server comes after.

    Raises:
        ValueError: If it is no address of this machine, or taken.
    """
    address = cluster.workers[cluster.index]
    host, _, port = address.rpartition(":")
    try:
        server = socket.create_server((host, int(port)), backlog=1024)
    except OSError as error:
        reason = "is in use" if error.errno == errno.EADDRINUSE else error.strerror
        raise ValueError(
            f"Expected for worker {cluster.index} a free port of this machine. "
            f"Received: {address}, {reason}."
        ) from None
    with server:
        yield server
