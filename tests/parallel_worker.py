"""One process of a data-parallel job: three SGD steps of a BatchNorm network and an evaluation with a padded batch.

Run as a script by test_parallel.py; writes every array that must be equal between executors to an .npz file.
"""

import argparse
import os
import sys

from quick import xla_flags


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--executor", default="jit")
    parser.add_argument("--shard-state", default="none")
    parser.add_argument("--local-devices", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--process-id", type=int, default=0)
    parser.add_argument("--coordinator")
    parser.add_argument(
        "--cases",
        nargs="+",
        required=True,
        help="train.batch_norm and optimizer.accumulate: [augmented/]ghost=2/1",
    )
    parser.add_argument("--out", required=True)
    options = parser.parse_args()
    os.environ["XLA_FLAGS"] = xla_flags(options.local_devices)

    from cnnjax.config_files import check, merge
    from cnnjax.parallel import join_processes

    tree: dict = {
        "data": {"batch_size": 32},
        "eval": {"batch_size": 16},
        "optimizer": {"args": {"momentum": 0.9}, "weight_decay": 1e-3},
        "schedule": {"kind": "constant", "learning_rate": 0.1},
        # shard_from: whatever is as large as the eight devices are many
        "parallel": {"executor": options.executor, "shard_state": options.shard_state, "shard_from": 8},
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
    for index, case in enumerate(options.cases):
        *augmented, mode, accumulate = case.split("/")
        value = {"ghost": int(mode.partition("=")[2])} if mode.startswith("ghost") else mode
        overrides = {"train": {"batch_norm": value}, "optimizer": {"accumulate": int(accumulate)}}
        if augmented:
            changes = [{"kind": kind} for kind in ("flip", "rotation", "brightness", "noise", "mixup", "cutmix")]
            overrides["data"] = {"augment": changes}
        results = run(check(merge(tree, overrides)), evaluate=index == 0)
        arrays |= {f"{case}/{name}": leaf for name, leaf in results.items()}
    if options.process_id == 0:
        np.savez(options.out, **arrays)


def run(config, *, evaluate: bool) -> dict:
    import numpy as np
    from flax import linen as nn

    from cnnjax.augment.batches import make_batch_change
    from cnnjax.data.examples import ArrayExamples
    from cnnjax.data.loader import Shard, eval_batches, train_batches
    from cnnjax.nn.network import Network, Outputs
    from cnnjax.nn.norm import BatchNorm
    from cnnjax.parallel import make_executor
    from cnnjax.train.losses import make_loss
    from cnnjax.train.optimizer import make_optimizer
    from cnnjax.train.state import init_state
    from cnnjax.train.step import batch_averaging, make_eval_step, make_train_step

    class SmallNetwork(Network):
        @nn.compact
        def __call__(self, images, *, train):
            x = images
            x = nn.Conv(8, (3, 3), strides=2, use_bias=False, name="conv")(x)
            x = nn.relu(BatchNorm(self.batch_averaging, name="norm")(x, train=train))
            return Outputs(nn.Dense(self.num_classes, name="head")(x.mean((1, 2))), {}, {})

    executor = make_executor(config)
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (100, 8, 8, 3), dtype=np.uint8)
    examples = ArrayExamples(images, random.integers(0, 5, 100, dtype=np.int32))
    optimizer = make_optimizer(config.optimizer, config.schedule.learning_rate)
    loss = make_loss(config.train.loss)
    averaging = batch_averaging(config.train.batch_norm, executor.axis)
    network = SmallNetwork(num_classes=5, batch_averaging=averaging)
    # SGD on purpose: Adam would hide gradients that are too large by a constant factor.
    train_step = executor.compile_train(
        make_train_step(
            network,
            optimizer,
            loss,
            accumulate=config.optimizer.accumulate,
            ema_decay=0.9,
            augment=make_batch_change(config.data.augment) if config.data.augment else None,
            axis=executor.axis,
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
        if step == 0:  # momentum begins at zero: it is the gradient, with the decay
            arrays |= {f"first/{name}": leaf for name, leaf in read_state(executor, state).items() if "trace" in name}
    totals: dict = {}
    if not evaluate:
        return arrays | read_state(executor, state)
    for batch in eval_batches(examples, batch_size=16, shard=shard, put=executor.put_batch):
        for name, pair in executor.read_metrics(eval_step(state.params, state.batch_stats, batch)).items():
            totals[name] = totals.get(name, 0) + np.asarray(pair)
    arrays |= {f"eval/{name}": total for name, total in totals.items()}
    return arrays | read_state(executor, state)


def read_state(executor, state) -> dict:
    import jax

    from cnnjax.parallel import to_host

    leaves = jax.tree_util.tree_leaves_with_path(executor.copy_state(state))
    return {f"state{jax.tree_util.keystr(path)}": to_host(leaf) for path, leaf in leaves}


if __name__ == "__main__":
    sys.exit(main())
