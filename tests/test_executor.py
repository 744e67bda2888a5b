"""Which devices and processes a config gets, and what it is told when it cannot have them."""

import pytest

from cnnjax.config_files import load_config
from cnnjax.errors import ConfigError
from cnnjax.parallel import (
    agree,
    broadcast,
    make_eval_executor,
    make_executor,
    should_stop,
)
from cnnjax.parallel.clusters import cluster_has_several
from cnnjax.train.step import BatchAxis


def test_all_devices_by_default():
    assert make_executor(load_config()).devices == 8
    assert make_executor(load_config(None, ["parallel.devices=4"])).devices == 4


def test_the_step_sees_shards_under_jit_and_a_mapped_axis_under_pmap():
    assert make_executor(load_config()).axis == BatchAxis(shards=8)
    assert make_executor(load_config(None, ["parallel.executor=pmap"])).axis == BatchAxis(name="data")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["parallel.devices=16", "data.batch_size=160"], "parallel.devices: 16 asked for, and 8 cpu devices are there"),
        (
            ["data.batch_size=100"],
            "data.batch_size: 100 is not divisible by devices times optimizer.accumulate = 8; 96",
        ),
        (["optimizer.accumulate=3", "data.batch_size=129"], "optimizer.accumulate = 24"),
        (["eval.batch_size=12"], "eval.batch_size: 12 is not divisible by devices = 8"),
        (["train.batch_norm={ghost: 32}"], "a device's micro-batch: 16 is not divisible by train.batch_norm.ghost"),
    ],
)
def test_what_does_not_fit_the_devices_is_refused(overrides, message):
    with pytest.raises(ConfigError) as caught:
        make_executor(load_config(None, overrides))
    assert message in str(caught.value)


@pytest.mark.parametrize(("batch_size", "devices"), [(256, 8), (12, 4), (7, 1)])
def test_a_run_is_evaluated_on_the_devices_that_are_here(batch_size, devices):
    trained_elsewhere = load_config(
        None, [f"eval.batch_size={batch_size * 16}", "parallel.devices=16", "data.batch_size=160"]
    )
    here = trained_elsewhere.model_copy(
        update={"eval": trained_elsewhere.eval.model_copy(update={"batch_size": batch_size})}
    )
    assert make_eval_executor(here).devices == devices


@pytest.mark.parametrize(
    ("environment", "several"),
    [
        ({}, False),
        ({"SLURM_NTASKS": "1"}, False),
        ({"SLURM_NTASKS": "4"}, True),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, True),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
        ({"TPU_WORKER_HOSTNAMES": "host-0,host-1"}, True),
        ({"SLURM_NTASKS": "many"}, False),
    ],
)
def test_a_cluster_is_known_by_its_environment(environment, several):
    assert cluster_has_several(environment) is several


def test_a_lone_process_agrees_with_itself():
    agree(None)
    assert broadcast(3) == 3
    assert should_stop(True, 1) is True
    assert should_stop(False, 1) is False
