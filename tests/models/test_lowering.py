"""Every network's train step lowers for CPU, CUDA and TPU at once, on a machine that has only the first.

In the fast tests a small network of each family; in the slow ones published networks in evaluation, one of those that
differ in the sizes of their stages alone. With `CNNJAX_NETWORKS=all` every small and every published one.
"""

import re
from collections import Counter

import jax
import jax.numpy as jnp
import pytest
from jax import export
from jaxlib.mlir.passmanager import PassManager
from narrow import ALL, FIRST, distinct, narrow

from cnnjax.config import OptimizerConfig
from cnnjax.models import create_model, get_variant, list_models
from cnnjax.train.losses import cross_entropy
from cnnjax.train.optimizer import make_optimizer
from cnnjax.train.state import TrainState
from cnnjax.train.step import make_train_step

# `lenet5_modern` pools its convolutions at once, `lenet5` does not.
FAST = (*FIRST, "lenet5_modern")
NAMES = (*FAST, *(name for name in distinct() if ALL and name not in FAST))
# Between them they have every kind of layer.
MIXED = ("lenet5_modern", "googlenet", "resnext50_32x4d", "mobilenet_v1", "efficientnet_b0", "unet")


def train_step(network, shape):
    """A network's train step, and the shapes of its arguments."""
    optimizer = make_optimizer(OptimizerConfig(args={"momentum": 0.9}), 0.1)

    def begin() -> TrainState:
        variables = network.init(jax.random.key(0), jnp.zeros((1, *shape)), train=False)
        params = variables["params"]
        key = jnp.zeros((2,), jnp.uint32)
        return TrainState(
            jnp.zeros((), jnp.int32), key, params, variables.get("batch_stats", {}), optimizer.init(params), None
        )

    batch = {
        "image": jax.ShapeDtypeStruct((4, *shape), jnp.uint8),
        "label": jax.ShapeDtypeStruct((4, *shape[:2]) if network.labels_pixels else (4,), jnp.int32),
        "mask": jax.ShapeDtypeStruct((4,), jnp.float32),
    }
    step = jax.jit(make_train_step(network, optimizer, cross_entropy), donate_argnums=0)
    return step, (jax.eval_shape(begin), batch)


@pytest.mark.parametrize("name", NAMES)
def test_the_train_step_lowers_for_every_platform(name):
    """On TPUs and GPUs it is the one without other ways of writing convolutions, operation by operation."""
    step, arguments = train_step(*narrow(name, lowering="auto"))
    export_everywhere(step, arguments)
    plain = train_step(*narrow(name, lowering="native"))
    for platform in ("tpu", "cuda") if name in MIXED else ("tpu",):
        expected = lowered_operations(*plain, platform)
        assert expected["stablehlo.convolution"] > 0
        assert lowered_operations(step, arguments, platform) == expected


@pytest.mark.parametrize("name", MIXED)
def test_in_half_precision_too(name):
    export_everywhere(*train_step(*narrow(name, dtype=jnp.bfloat16, lowering="auto")))


@pytest.mark.slow
@pytest.mark.parametrize("platform", ["tpu", "cuda"])
@pytest.mark.parametrize("name", MIXED)
def test_what_is_written_for_onednn_is_plain_elsewhere(name, platform):
    ours, plain = (
        lowered_operations(*train_step(*narrow(name, lowering=lowering)), platform) for lowering in ("onednn", "native")
    )
    assert ours == plain


def export_everywhere(step, arguments):
    exported = export.export(step, platforms=["cpu", "cuda", "tpu"])(*arguments)
    assert exported.platforms == ("cpu", "cuda", "tpu")
    assert "convolution" in exported.mlir_module()


def lowered_operations(step, arguments, platform):
    """What a train step is for a platform: how often each operation stands there."""
    module = step.trace(*arguments).lower(lowering_platforms=(platform,)).compiler_ir()
    # Drops what was chosen already when it was lowered: a choice of one branch by a constant.
    with module.context:
        PassManager.parse("builtin.module(canonicalize,cse)").run(module.operation)
    return operations(str(module))


def operations(module: str) -> Counter[str]:
    """How often each operation stands in a module, constants and calls of functions left out."""
    names = re.findall(r"stablehlo\.\w+", module)
    return Counter(name for name in names if name != "stablehlo.constant")


@pytest.mark.slow
@pytest.mark.parametrize("name", list_models() if ALL else distinct())
def test_the_published_network_lowers_for_every_platform(name):
    network, shape = create_model(name), get_variant(name).input_shape
    images = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    variables = jax.eval_shape(lambda key, x: network.init(key, x, train=False), jax.random.key(0), images)
    evaluate = jax.jit(lambda variables, x: network.apply(variables, x, train=False).logits)
    exported = export.export(evaluate, platforms=["cpu", "cuda", "tpu"])(variables, images)
    assert exported.platforms == ("cpu", "cuda", "tpu")
    assert exported.out_avals[0].shape[-1] == network.num_classes
