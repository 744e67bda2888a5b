"""The environments of clusters: what JAX finds in them is what is joined, and a single process is left alone."""

import os
import subprocess
import sys

import jax
import pytest
from jax._src import cloud_tpu_init, clusters
from jax._src.clusters import cloud_tpu_cluster, cluster

from cnnjax.config_parallel import ParallelConfig
from cnnjax.errors import CnnjaxWarning, RunError
from cnnjax.parallel.clusters import cluster_has_several, find_job

SLURM = {
    "SLURM_JOB_ID": "4711",
    "SLURM_STEP_NODELIST": "localhost",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "0",
}
OPEN_MPI = {
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://127.0.0.1:34911",
    "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
}
GKE = {"TPU_WORKER_HOSTNAMES": "localhost,worker1,worker2", "TPU_WORKER_ID": "2"}
GKE_SLICES = {
    "TPU_WORKER_HOSTNAMES": "worker0",
    "TPU_WORKER_ID": "0",
    "MEGASCALE_NUM_SLICES": "2",
    "MEGASCALE_SLICE_ID": "1",
    "MEGASCALE_COORDINATOR_ADDRESS": "localhost:8081",
}
OWN = {"JAX_COORDINATOR_ADDRESS": "localhost:1234", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "3"}
AUTO = ParallelConfig()


@pytest.fixture(autouse=True)
def bare(monkeypatch):
    """Of no cluster."""
    for name in os.environ:
        if name.startswith(("SLURM_", "OMPI_", "TPU_", "MEGASCALE_", "JAX_COORDINATOR", "JAX_NUM", "JAX_PROCESS_ID")):
            monkeypatch.delenv(name)
    return monkeypatch


def put(monkeypatch, environment: dict[str, str]) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


def on_a_tpu_machine(monkeypatch) -> None:
    for module in (cloud_tpu_init, cloud_tpu_cluster, cluster):
        monkeypatch.setattr(module, "running_in_cloud_tpu_vm", True)


def test_without_a_cluster_there_is_no_job():
    assert find_job(AUTO) is None


@pytest.mark.parametrize(
    ("environment", "place", "devices"),
    [
        (SLURM, (2, 1), [0]),
        (SLURM | {"SLURM_STEP_NODELIST": "localhost,node2"}, (2, 1), [0]),
        (OPEN_MPI, (2, 1), [1]),
        (OWN, (4, 3), None),
    ],
    ids=["slurm", "slurm on two nodes", "open mpi", "jax"],
)
def test_the_place_in_the_job_is_found(environment, place, devices, bare):
    put(bare, environment)
    job = find_job(AUTO)
    assert (job.processes, job.process_id) == place
    assert job.coordinator.partition(":")[0] in ("localhost", "127.0.0.1")
    assert job.local_devices == devices


@pytest.mark.parametrize(("environment", "place"), [(GKE, (3, 2)), (GKE_SLICES, (2, 1))], ids=["hosts", "slices"])
def test_tpus_of_gke(environment, place, bare):
    on_a_tpu_machine(bare)
    bare.setenv("TPU_SKIP_MDS_QUERY", "1")  # the rest would be asked of a server of the cloud's
    bare.setattr(cloud_tpu_cluster, "get_metadata", lambda _: ("", 404))
    put(bare, environment)
    job = find_job(AUTO)
    assert (job.processes, job.process_id, job.local_devices) == (*place, None)
    assert job.coordinator == "localhost:8482"


def metadata(workers: str):
    answers = {"agent-worker-number": "1", "worker-network-endpoints": workers, "tpu-env": "ZONE: 'here'\n"}
    return lambda key: (answers[key], 200)


def test_a_pod_whose_machines_know_of_each_other_by_metadata_alone(bare):
    on_a_tpu_machine(bare)
    bare.setattr(cloud_tpu_cluster, "get_metadata", metadata("unknown:8470:127.0.0.1,unknown:8470:127.0.0.2"))
    assert not cluster_has_several(os.environ)
    job = find_job(AUTO)
    assert (job.coordinator, job.processes, job.process_id) == ("127.0.0.1:8482", 2, 1)


def test_a_tpu_machine_by_itself(bare):
    on_a_tpu_machine(bare)
    bare.setattr(cloud_tpu_cluster, "get_metadata", metadata("127.0.0.1"))
    assert find_job(AUTO) is None


def test_a_tpu_machine_without_metadata_says_so_and_goes_on(bare):
    def unreachable(_):
        raise OSError("metadata.google.internal is not known")

    on_a_tpu_machine(bare)
    bare.setattr(cloud_tpu_cluster, "get_metadata", unreachable)
    with pytest.warns(CnnjaxWarning, match=r"metadata\.google\.internal is not known.*going on as a single process"):
        assert find_job(AUTO) is None


def test_off_joins_nothing(bare):
    put(bare, SLURM)
    assert find_job(ParallelConfig(distributed="off")) is None


def test_flags_come_before_the_environment(bare):
    put(bare, OPEN_MPI)
    job = find_job(ParallelConfig(coordinator="there:12", processes=8, process_id=7))
    assert (job.coordinator, job.processes, job.process_id) == ("there:12", 8, 7)


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"SLURM_NTASKS": "4"}, r"the environment tells of several processes \(SLURM_NTASKS=4\), but not which"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, r"several processes \(OMPI_COMM_WORLD_SIZE=2\)"),
        (SLURM | {"SLURM_PROCID": "first"}, "cannot be understood .*first"),
        ({"JAX_NUM_PROCESSES": "two"}, "JAX_NUM_PROCESSES: expected a whole number, got 'two'"),
        ({name: OPEN_MPI[name] for name in list(OPEN_MPI)[:2]}, "cannot be understood .'OMPI_COMM_WORLD_RANK'"),
    ],
    ids=["no srun", "no mpirun", "misspelt", "no number", "a part"],
)
def test_an_environment_that_does_not_tell_enough(environment, sentence, bare):
    put(bare, environment)
    config = ParallelConfig(distributed="on") if "JAX_NUM_PROCESSES" in environment else AUTO
    with pytest.raises(RunError, match=sentence):
        find_job(config)


def test_on_without_others():
    with pytest.raises(RunError, match=r"parallel\.distributed is on, and the environment tells of no other processes"):
        find_job(ParallelConfig(distributed="on"))


@pytest.mark.parametrize("environment", [SLURM, OPEN_MPI, GKE, GKE_SLICES], ids=["slurm", "ompi", "gke", "slices"])
def test_several_are_told_from_one(environment, bare):
    assert cluster_has_several(environment)
    counts = ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE", "MEGASCALE_NUM_SLICES")
    alone = environment | {name: "1" for name in counts if name in environment}
    assert not cluster_has_several(alone | ({"TPU_WORKER_HOSTNAMES": "localhost"} if "TPU_WORKER_ID" in alone else {}))


def test_clusters_are_those_that_jax_knows():
    """A new one, and `cluster_has_several` may have to hear of it."""
    names = {each.__name__.removesuffix("Cluster") for each in clusters.ClusterEnv._cluster_types}
    assert names == {"Ompi", "Slurm", "Mpi4py", "BaseTpu", "GkeTpu", "GceTpu", "K8s"}, jax.__version__


JOINS = """
from cnnjax.config_parallel import ParallelConfig
from cnnjax.parallel import join_processes
join_processes(ParallelConfig(join_timeout=60))
import jax
print(jax.process_index(), jax.process_count())
"""


@pytest.mark.parametrize(
    ("environment", "rank"), [(SLURM, "SLURM_PROCID"), (OPEN_MPI, "OMPI_COMM_WORLD_RANK")], ids=["slurm", "open mpi"]
)
def test_two_processes_join_as_the_launcher_says(environment, rank):
    job = {"SLURM_JOB_ID": str(os.getpid())} if rank == "SLURM_PROCID" else {}
    if not job:  # the port is made of the number before the dot
        job = {"OMPI_MCA_orte_hnp_uri": f"{(os.getpid() % 4096) << 12}.0;tcp://127.0.0.1:34911"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", JOINS],
            env=os.environ | environment | job | {rank: str(index)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    for index, process in enumerate(processes):
        out, err = process.communicate(timeout=120)
        assert out.splitlines()[-1] == f"{index} 2", err
