"""The examples for Slurm and Kubernetes: what they set is what train.py reads."""

import json
import os
import pathlib
import re
import subprocess

import pytest

from epnet_tf.cluster import read_tf_config

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples" / "distributed"


def expanded(value, variables):
    """As Kubernetes expands `$(NAME)` of variables that are listed before."""
    return re.sub(r"\$\((\w+)\)", lambda match: variables[match[1]], value)


@pytest.mark.parametrize("index", ["0", "1"])
def test_the_pods_of_the_job_set(index):
    yaml = pytest.importorskip("yaml")
    (job_set,) = yaml.safe_load_all((EXAMPLES / "jobset.yaml").read_text())
    assert job_set["kind"] == "JobSet"
    (replicated,) = job_set["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    (container,) = job["template"]["spec"]["containers"]
    variables = {}
    for variable in container["env"]:
        # The one that is a field is the pod's index.
        value = expanded(variable.get("value", index), variables)
        variables[variable["name"]] = value
    cluster = read_tf_config(variables)
    assert cluster.index == int(index)
    name = f"{job_set['metadata']['name']}-{replicated['name']}-0"
    port = container["ports"][0]["containerPort"]
    assert cluster.workers == tuple(
        f"{name}-{k}.{job_set['metadata']['name']}:{port}"
        for k in range(job["completions"])
    )
    assert job["completions"] == job["parallelism"] == len(cluster.workers)
    assert container["command"][:3] == [
        "python", "train.py", "--distribute=multi_worker",
    ]  # fmt: skip


def executable(path, text):
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)


def test_the_workers_of_the_slurm_job(tmp_path):
    """Slurm's commands and python are stand-ins that print what they are given."""
    executable(tmp_path / "scontrol", "printf 'node1\\nnode2\\n'")
    executable(
        tmp_path / "srun",
        'shift; for k in 0 1; do SLURM_PROCID=$k "$@"; done',
    )
    executable(tmp_path / "python", 'echo $TF_CONFIG; echo "$@"')
    variables = {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "SLURM_JOB_NODELIST": "node[1-2]",
    }
    ran = subprocess.run(
        ["bash", EXAMPLES / "slurm.sbatch", "--workdir=a folder"],
        env=variables,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    for k in (0, 1):
        config, arguments = lines[2 * k : 2 * k + 2]
        cluster = read_tf_config({"TF_CONFIG": config})
        assert cluster.workers == ("node1:2222", "node2:2222") and cluster.index == k
        assert arguments == "train.py --distribute=multi_worker --workdir=a folder"
        assert json.loads(config)["task"]["type"] == "worker"
