"""Every network's train step lowers for CPU, CUDA and TPU at once, on a machine that has only the first."""

import jax
import jax.numpy as jnp
import pytest
from jax import export

from cnnjax.config import OptimizerConfig
from cnnjax.models import create_model, get_variant, list_models
from cnnjax.train.losses import cross_entropy
from cnnjax.train.optimizer import make_optimizer
from cnnjax.train.state import TrainState
from cnnjax.train.step import make_train_step


@pytest.mark.parametrize("name", list_models())
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_train_step_lowers_for_every_platform(name, dtype):
    network = create_model(name, dtype=jnp.dtype(dtype))
    optimizer = make_optimizer(OptimizerConfig(args={"momentum": 0.9}), 0.1)
    shape = get_variant(name).input_shape

    def begin() -> TrainState:
        variables = network.init(jax.random.key(0), jnp.zeros((1, *shape)), train=False)
        params = variables["params"]
        key = jnp.zeros((2,), jnp.uint32)
        return TrainState(
            jnp.zeros((), jnp.int32), key, params, variables.get("batch_stats", {}), optimizer.init(params), None
        )

    batch = {
        "image": jax.ShapeDtypeStruct((4, *shape), jnp.uint8),
        "label": jax.ShapeDtypeStruct((4,), jnp.int32),
        "mask": jax.ShapeDtypeStruct((4,), jnp.float32),
    }
    step = jax.jit(make_train_step(network, optimizer, cross_entropy), donate_argnums=0)
    exported = export.export(step, platforms=["cpu", "cuda", "tpu"])(jax.eval_shape(begin), batch)
    assert exported.platforms == ("cpu", "cuda", "tpu")
    assert "convolution" in exported.mlir_module()
