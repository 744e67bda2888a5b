"""One process of a data-parallel job: three SGD steps of a BatchNorm network and an evaluation with a padded batch.

Run as a script by test_parallel.py; writes every array that must be equal between executors to an .npz file.
"""

import argparse
import os
import sys


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--executor", default="jit")
    parser.add_argument("--local-devices", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--process-id", type=int, default=0)
    parser.add_argument("--coordinator")
    parser.add_argument("--modes", nargs="+", required=True, help="name=value pairs of train.batch_norm")
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--out", required=True)
    options = parser.parse_args()
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={options.local_devices}"

    from cnnjax.config_files import check
    from cnnjax.parallel import join_processes

    tree: dict = {
        "data": {"batch_size": 32},
        "eval": {"batch_size": 16},
        "optimizer": {"args": {"momentum": 0.9}, "weight_decay": 1e-3, "accumulate": options.accumulate},
        "schedule": {"kind": "constant", "learning_rate": 0.1},
        "parallel": {"executor": options.executor},
    }
    if options.processes > 1:
        tree["parallel"] |= {
            "coordinator": options.coordinator,
            "processes": options.processes,
            "process_id": options.process_id,
        }
    join_processes(check(tree).parallel)

    import numpy as np

    arrays: dict = {}
    for mode in options.modes:
        value = {"ghost": int(mode.partition("=")[2])} if mode.startswith("ghost") else mode
        arrays |= {f"{mode}/{name}": leaf for name, leaf in run(check(tree | {"train": {"batch_norm": value}})).items()}
    if options.process_id == 0:
        np.savez(options.out, **arrays)


def run(config) -> dict:
    import jax
    import numpy as np
    from flax import linen as nn

    from cnnjax.data.loader import Shard, eval_batches, train_batches
    from cnnjax.data.sources import Examples
    from cnnjax.nn.network import Network, Outputs
    from cnnjax.nn.norm import BatchNorm
    from cnnjax.parallel import make_executor, to_host
    from cnnjax.train.losses import make_loss
    from cnnjax.train.optimizer import make_optimizer
    from cnnjax.train.state import init_state
    from cnnjax.train.step import batch_averaging, make_eval_step, make_train_step

    class SmallNetwork(Network):
        @nn.compact
        def __call__(self, images, *, train):
            x = images
            for width in (8, 16):
                x = nn.Conv(width, (3, 3), strides=2, use_bias=False, name=f"conv{width}")(x)
                x = nn.relu(BatchNorm(self.batch_averaging, name=f"norm{width}")(x, train=train))
            return Outputs(nn.Dense(self.num_classes, name="head")(x.mean((1, 2))), {}, {})

    executor = make_executor(config)
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (100, 8, 8, 3), dtype=np.uint8)
    examples = Examples(images, random.integers(0, 5, 100, dtype=np.int32))
    optimizer = make_optimizer(config.optimizer, config.schedule.learning_rate)
    loss = make_loss(config.train.loss)
    averaging = batch_averaging(config.train.batch_norm, executor.axis)
    network = SmallNetwork(num_classes=5, batch_averaging=averaging)
    # SGD on purpose: Adam would hide gradients that are too large by a constant factor.
    train_step = executor.compile_train(
        make_train_step(
            network, optimizer, loss, accumulate=config.optimizer.accumulate, ema_decay=0.9, axis=executor.axis
        )
    )
    eval_step = executor.compile_eval(make_eval_step(network, loss, axis=executor.axis))
    state = executor.put_state(init_state(network, optimizer, 0, (8, 8, 3), ema=True))
    shard = Shard(executor.process_index, executor.process_count)
    arrays = {}
    batches = train_batches(examples, batch_size=32, seed=0, shard=shard, put=executor.put_batch)
    for step in range(3):
        state, metrics = train_step(state, next(batches))
        for name, pair in executor.read_metrics(metrics).items():
            arrays[f"train{step}/{name}"] = np.asarray(pair)
    totals: dict = {}
    for batch in eval_batches(examples, batch_size=16, shard=shard, put=executor.put_batch):
        for name, pair in executor.read_metrics(eval_step(state.params, state.batch_stats, batch)).items():
            totals[name] = totals.get(name, 0) + np.asarray(pair)
    arrays |= {f"eval/{name}": total for name, total in totals.items()}
    leaves = jax.tree_util.tree_flatten_with_path(executor.copy_state(state))[0]
    return arrays | {f"state{jax.tree_util.keystr(path)}": to_host(leaf) for path, leaf in leaves}


if __name__ == "__main__":
    sys.exit(main())
