"""Workers of several hosts: TF_CONFIG, how they meet, what they tell of each other."""

import contextlib
import json
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from epnet_tf import cluster
from epnet_tf.cluster import Cluster, Team, read_tf_config

sys.path.append(str(pathlib.Path(__file__).parents[1] / "benchmarks"))

from addresses import free_addresses

WORKERS = ["a:1", "b:2"]
# Seconds that no test takes, however busy the machine is, unless it fails.
PATIENCE = 120


def tf_config(workers=WORKERS, kind="worker", index=0, **tasks):
    cluster = {"worker": list(workers), **tasks}
    return json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})


def read(text):
    return read_tf_config({"TF_CONFIG": text})


def test_workers_and_chief():
    assert read(tf_config(index=1)) == Cluster(("a:1", "b:2"), 1)
    assert read(tf_config(index="1")).index == 1
    with_chief = read(tf_config(chief=["c:3"]))
    assert with_chief == Cluster(("c:3", "a:1", "b:2"), 1)
    assert not with_chief.is_chief
    assert read(tf_config(kind="chief", chief=["c:3"])).is_chief


@pytest.mark.parametrize(
    "text, said",
    [
        ("", "TF_CONFIG.*Received: none"),
        ("{", "in JSON. Received: {"),
        ("[]", "'cluster'"),
        ('{"cluster": {"worker": ["a:1"]}}', "'task'"),
        (tf_config(index=2), '"index": 2'),
        (tf_config(index=-1), '"index": -1'),
        (tf_config(kind="chief"), '"type": "chief"'),
        (tf_config(ps=["c:3"]), "workers and at most one chief"),
        (tf_config(chief=["c:3", "d:4"]), "at most one chief"),
        (tf_config(worker=2), "lists of workers.*Received: {.worker.: 2"),
        (tf_config(worker=None), "lists of workers.*Received: {.worker.: null"),
        (tf_config(worker="a:1"), "lists of workers.*Received: {.worker.: .a:1"),
        (tf_config(kind=["worker"]), "task with the type"),
        (tf_config(["a", "b:2"]), "HOST:PORT. Received: 'a'"),
        (tf_config(["a:0", "b:2"]), "Received: 'a:0'"),
        (tf_config(["a:1", "a:1"]), "another address for each worker"),
    ],
)
def test_a_wrong_tf_config(text, said):
    with pytest.raises(ValueError, match=said) as raised:
        read(text)
    assert "\n" not in str(raised.value)


@pytest.fixture(autouse=True)
def _threads_are_no_processes(monkeypatch):
    """Workers in threads do not end by themselves, nor may they end this process."""
    monkeypatch.setattr(cluster, "_GRACE_SECONDS", 1.0)
    codes = []
    monkeypatch.setattr(cluster.os, "_exit", codes.append)
    yield
    assert not codes


def ends(thread):
    thread.join(PATIENCE)
    assert not thread.is_alive()


def wait_for(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def met(teams_and_actions):
    """What each worker, in a thread of its own, ends with."""
    results = {}

    def work(i, team, action):
        try:
            with team:
                results[i] = action(team)
        except ValueError as error:
            results[i] = str(error)

    threads = [
        threading.Thread(target=work, args=(i, *each), daemon=True)
        for i, each in enumerate(teams_and_actions)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        ends(thread)
    return [results[i] for i in range(len(threads))]


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_team_meets_and_agrees(count):
    addresses = free_addresses(count)
    teams = [
        Team(Cluster(addresses, i), {"epochs": "3"}, PATIENCE) for i in range(count)
    ]
    assert met([(t, lambda t: t.agree("x", [1, 2])) for t in teams]) == [None] * count


def test_who_comes_last_is_waited_for():
    addresses = free_addresses(2)
    came = []

    def late(team):
        time.sleep(0.5)
        came.append(True)
        team.agree("x", 1)

    def early(team):
        team.agree("x", 1)
        return list(came)

    teams = [Team(Cluster(addresses, i), {}, PATIENCE) for i in range(2)]
    assert met([(teams[0], early), (teams[1], late)])[0] == [True]


def test_other_flags_are_told_to_all(monkeypatch):
    # Whoever comes last is waited for.
    monkeypatch.setattr(cluster, "_GRACE_SECONDS", PATIENCE)
    addresses = free_addresses(3)
    sizes = ("64", "64", "32")
    teams = [
        Team(Cluster(addresses, i), {"--batch_size": size}, PATIENCE)
        for i, size in enumerate(sizes)
    ]
    for said in met([(team, lambda _: None) for team in teams]):
        assert said == (
            "Expected the same --batch_size for all workers, 64 as for worker 0 "
            f"({addresses[0]}). Received: 32 for worker 2 ({addresses[2]})."
        )


def test_another_cluster_is_told_to_all():
    first, second, third = free_addresses(3)
    teams = [
        Team(Cluster((first, second), 0), {}, PATIENCE),
        Team(Cluster((first, second, third), 1), {}, PATIENCE),
    ]
    for said in met([(team, lambda _: None) for team in teams]):
        assert said.startswith("Expected the same cluster in TF_CONFIG of all workers")
        assert third in said


def test_values_that_differ_are_told_to_all():
    addresses = free_addresses(2)
    teams = [Team(Cluster(addresses, i), {}, PATIENCE) for i in range(2)]
    actions = [lambda t: t.agree("the epoch", 3), lambda t: t.agree("the epoch", 0)]
    for said in met(list(zip(teams, actions, strict=True))):
        assert "Expected the epoch to be the same for all workers, 3 as" in said
        assert "Received: 0 for worker 1" in said


def test_a_worker_that_does_not_come():
    addresses = free_addresses(3)
    teams = [Team(Cluster(addresses, i), {}, [3.0, PATIENCE][i]) for i in range(2)]
    for said in met([(team, lambda _: None) for team in teams]):
        assert said == (
            "Expected all 3 workers within 3 s. Received: no word from worker 2 "
            f"({addresses[2]})."
        )


def greeting(address, index, addresses):
    """A connection to the chief by which a worker has said who it is."""
    host, port = address.split(":")
    connections = []

    def connected():
        with contextlib.suppress(ConnectionRefusedError):
            connections.append(socket.create_connection((host, int(port))))
        return connections

    wait_for(connected)
    (connection,) = connections
    hello = {"index": index, "workers": list(addresses), "facts": {}}
    connection.sendall(json.dumps(hello).encode() + b"\n")
    return connection


def test_a_worker_that_is_started_again_before_all_have_met():
    addresses = free_addresses(3)
    teams = [Team(Cluster(addresses, i), {}, PATIENCE) for i in range(3)]

    def start_again():
        greeting(addresses[0], 1, addresses).close()
        return met([(team, lambda t: t.agree("x", 1)) for team in teams[1:]])

    result = []
    others = threading.Thread(target=lambda: result.extend(start_again()), daemon=True)
    others.start()
    assert met([(teams[0], lambda t: t.agree("x", 1))]) == [None]
    ends(others)
    assert result == [None, None]


def test_a_worker_that_is_gone_has_not_come():
    addresses = free_addresses(3)
    teams = [Team(Cluster(addresses, i), {}, PATIENCE) for i in range(3)]
    results = {}

    def begin(index):
        def work():
            results[index] = met([(teams[index], lambda t: t.agree("x", 1))])

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        return thread

    threads = [begin(0)]
    greeting(addresses[0], 1, addresses).close()
    threads.append(begin(2))
    # The chief has heard of all workers now; one of them is to be started again.
    time.sleep(0.5)
    threads.append(begin(1))
    for thread in threads:
        ends(thread)
    assert results == {i: [None] for i in range(3)}


def test_who_is_gone_is_named_when_time_is_over():
    # The third does not come, so that the second is gone before all have met.
    addresses = free_addresses(3)
    greet = threading.Thread(
        target=lambda: greeting(addresses[0], 1, addresses).close(), daemon=True
    )
    greet.start()
    with pytest.raises(ValueError, match=r"no word from worker 1 .*, worker 2 "):
        with Team(Cluster(addresses, 0), {}, seconds=2.0):
            pass


def test_two_processes_for_one_worker():
    addresses = free_addresses(3)
    team, said = Team(Cluster(addresses, 0), {}, PATIENCE), []
    chief = threading.Thread(
        target=lambda: said.extend(met([(team, lambda _: None)])), daemon=True
    )
    chief.start()
    both = [greeting(addresses[0], 1, addresses) for _ in range(2)]
    ends(chief)
    (error,) = said
    assert error.endswith(f"Received: two for worker 1 ({addresses[1]}).")
    for connection in both:
        connection.close()


def test_a_chief_that_is_gone_before_its_farewell():
    addresses = free_addresses(2)
    host, port = addresses[0].split(":")
    team, left = Team(Cluster(addresses, 1), {}, PATIENCE), threading.Event()

    def work():
        with team:
            pass
        left.set()

    with socket.create_server((host, int(port))) as server:
        server.settimeout(PATIENCE)
        worker = threading.Thread(target=work, daemon=True)
        worker.start()
        connection, _ = server.accept()
        connection.settimeout(PATIENCE)
        lines = connection.makefile("rb")
        lines.readline()  # Who it is; then, that its run is done.
        connection.sendall(b'{"error": ""}\n')
        lines.readline()
        connection.sendall(b'{"error": ""}\n')
        wait_for(lambda: team._links[0].done)
        # Now it waits for the farewell.
        lines.close()
        connection.close()
        assert left.wait(PATIENCE)


def test_a_chief_that_does_not_come():
    addresses = free_addresses(2)
    with pytest.raises(ValueError, match=r"worker 0 .*, the chief, .* within 0\.5 s"):
        with Team(Cluster(addresses, 1), {}, seconds=0.5):
            pass


@pytest.mark.parametrize("index", [0, 1])
def test_a_port_that_is_taken(index):
    addresses = free_addresses(2)
    host, port = addresses[index].split(":")
    with socket.create_server((host, int(port))):
        with pytest.raises(ValueError, match=f"{addresses[index]}, is in use"):
            with Team(Cluster(addresses, index), {}, seconds=0.5):
                pass


def test_an_address_of_another_machine():
    # TEST-NET-1: documentation's, of no machine.
    with pytest.raises(ValueError, match=r"port of this machine. Received: 192\.0\.2"):
        with Team(Cluster(("192.0.2.1:2222", "192.0.2.2:2222"), 0), {}, seconds=0.5):
            pass


MEMBER = """
import sys, time
from epnet_tf.cluster import Team, read_tf_config
with Team(read_tf_config(), {}, seconds=120) as team:
    print("met", flush=True)
    if sys.argv[1] == "fail" and team.cluster.index == 1:
        raise ValueError("Expected a sentence. Received: none.")
    time.sleep(3600)
"""


def members(count, argument):
    addresses = free_addresses(count)
    return [
        subprocess.Popen(
            [sys.executable, "-c", MEMBER, argument],
            env={"TF_CONFIG": tf_config(addresses, index=i), "PATH": ""},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(count)
    ]


def errors(processes):
    """What processes that end by themselves print, and their exit codes."""
    try:
        ended = [process.communicate(timeout=PATIENCE) for process in processes]
        return [p.returncode for p in processes], [error for _, error in ended]
    finally:
        for process in processes:
            process.kill()


@pytest.mark.parametrize("victim", [0, 2])
def test_a_worker_that_is_killed_ends_the_others(victim):
    processes = members(3, "wait")
    for process in processes:
        assert process.stdout.readline() == "met\n"
    processes[victim].send_signal(signal.SIGKILL)
    others = [p for i, p in enumerate(processes) if i != victim]
    codes, said = errors(others)
    processes[victim].communicate()
    assert codes == [1, 1]
    for error in said:
        met, sentence = error.splitlines()
        assert met == "All 3 workers have met."
        assert sentence.startswith(f"error: worker {victim} (127.0.0.1:")
        assert "ended before the others" in sentence
        assert sentence.endswith("goes on from the last checkpoint.")


def test_a_worker_that_fails_says_why_to_the_others():
    processes = members(2, "fail")
    _, said = errors(processes)
    assert "worker 1" in said[0] and "Expected a sentence. Received: none." in said[0]
