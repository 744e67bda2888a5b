"""The order of training, its resumption and sharding, and exact evaluation."""

import json
import threading

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnjax.data.examples import ArrayExamples
from cnnjax.data.loader import (
    Shard,
    TrainBatches,
    epoch_order,
    eval_batches,
    eval_steps,
    example_indices,
    steps_per_epoch,
    train_batches,
)
from cnnjax.errors import ConfigError

sizes = st.integers(1, 60)
seeds = st.integers(0, 2**130)
quick = settings(max_examples=40, deadline=None)


def make_examples(count: int) -> ArrayExamples:
    """Labels that number the examples, and images that carry the number too."""
    numbers = np.arange(count, dtype=np.int32)
    return ArrayExamples(np.broadcast_to(numbers[:, None, None, None], (count, 3, 2, 1)).astype(np.uint8), numbers)


def take(batches, count: int) -> list:
    return [next(batches) for _ in range(count)]


def assert_same(left, right):
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


@quick
@given(sizes, sizes, seeds, st.integers(0, 5))
def test_every_epoch_is_a_permutation_less_its_remainder(count, batch_size, seed, epoch):
    batch_size = min(batch_size, count)
    steps = steps_per_epoch(count, batch_size)
    assert steps == count // batch_size
    seen = np.concatenate(
        [
            example_indices(epoch * steps + step, examples=count, batch_size=batch_size, seed=seed)
            for step in range(steps)
        ]
    )
    assert len(seen) == count - count % batch_size
    order = epoch_order(count, seed=seed, epoch=epoch)
    assert sorted(order) == list(range(count))
    np.testing.assert_array_equal(seen, order[: len(seen)])


def test_order_depends_on_seed_and_epoch_alone_and_is_pinned():
    orders = [epoch_order(50, seed=seed, epoch=epoch).tolist() for seed in range(3) for epoch in range(3)]
    assert len({tuple(order) for order in orders}) == 9
    dropped = [set(epoch_order(50, seed=0, epoch=epoch)[48:]) for epoch in range(5)]
    assert any(dropped[0] != other for other in dropped[1:])
    # Runs resume and are compared over years: the order must not move with a version of anything.
    assert epoch_order(10, seed=0, epoch=0).tolist() == [7, 8, 5, 1, 0, 6, 2, 3, 4, 9]
    assert epoch_order(10, seed=7, epoch=3).tolist() == [1, 2, 3, 6, 5, 4, 0, 8, 9, 7]


@quick
@given(sizes, sizes, st.integers(1, 4), seeds)
def test_hosts_together_see_the_global_batch(count, local, hosts, seed):
    batch_size = local * hosts
    count = max(count, batch_size)
    examples = make_examples(count)
    shards = [
        train_batches(examples, batch_size=batch_size, seed=seed, shard=Shard(index, hosts), prefetch=0)
        for index in range(hosts)
    ]
    for step in range(2 * steps_per_epoch(count, batch_size) if count < 20 else 3):
        parts = [next(shard) for shard in shards]
        assert all(part["label"].shape == (local,) for part in parts)
        expected = example_indices(step, examples=count, batch_size=batch_size, seed=seed)
        np.testing.assert_array_equal(np.concatenate([part["label"] for part in parts]), expected)
        for part in parts:
            assert (part["image"].dtype, part["label"].dtype, part["mask"].dtype) == (np.uint8, np.int32, np.float32)
            assert part["image"].shape == (local, 3, 2, 1)
            np.testing.assert_array_equal(part["image"][:, 0, 0, 0], part["label"])
            np.testing.assert_array_equal(part["mask"], np.ones(local))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 25), st.sampled_from([0, 1, 2, 5]), st.sampled_from([0, 2]))
def test_resumed_at_any_point_equals_never_stopped(stop, prefetch, prefetch_after):
    examples = make_examples(23)  # 4 steps an epoch, 3 examples left over
    options = {"batch_size": 5, "seed": 3, "shard": Shard()}
    uninterrupted = take(train_batches(examples, **options, prefetch=0), stop + 10)
    first = train_batches(examples, **options, prefetch=prefetch)
    before = take(first, stop)
    state = json.loads(json.dumps(first.get_state()))
    second = train_batches(examples, **options, prefetch=prefetch_after)
    second.set_state(state)
    assert_same(before + take(second, 10), uninterrupted)
    # The one that stopped goes on unharmed, and may be set back.
    assert_same(take(first, 10), uninterrupted[stop:])
    first.set_state(state)
    assert_same(take(first, 10), uninterrupted[stop:])
    first.close()
    second.close()


def test_prefetching_makes_batches_ahead_in_another_thread():
    made = []
    ahead = threading.Event()

    def put(batch):
        made.append(threading.current_thread())
        if len(made) == 3:
            ahead.set()
        return batch

    batches = train_batches(make_examples(20), batch_size=4, seed=0, shard=Shard(), put=put, prefetch=2)
    next(batches)
    assert ahead.wait(10), "one batch was handed out, and two more were expected to be made ahead"
    assert threading.main_thread() not in made
    assert batches.get_state() == {"next_index": 1}
    batches.close()


def test_without_prefetching_there_is_no_thread():
    made = []

    def put(batch):
        made.append(threading.current_thread())
        return batch["label"]

    batches = train_batches(make_examples(20), batch_size=4, seed=0, shard=Shard(), put=put, prefetch=0)
    expected = example_indices(0, examples=20, batch_size=4, seed=0)
    np.testing.assert_array_equal(next(batches), expected)
    assert made == [threading.main_thread()]


@pytest.mark.parametrize("prefetch", [0, 2])
def test_an_error_in_put_reaches_the_caller(prefetch):
    def put(batch):
        raise FloatingPointError("from put")

    batches = train_batches(make_examples(20), batch_size=4, seed=0, shard=Shard(), put=put, prefetch=prefetch)
    with pytest.raises(FloatingPointError, match="from put"):
        next(batches)


@pytest.mark.parametrize("prefetch", [0, 2])
def test_batches_on_devices_stay_as_they_were(prefetch):
    examples = make_examples(40)
    options = {"batch_size": 8, "seed": 1, "shard": Shard()}
    on_devices = take(train_batches(examples, **options, put=jax.device_put, prefetch=prefetch), 12)
    assert isinstance(on_devices[0]["image"], jax.Array)
    assert_same(on_devices, take(train_batches(examples, **options, prefetch=0), 12))


def test_source_serves_several_threads_across_epochs():
    source = TrainBatches(make_examples(30), batch_size=10, seed=0, shard=Shard())
    found: dict[int, np.ndarray] = {}

    def read(first: int) -> None:
        for step in range(first, 300, 4):
            found[step] = source[step]["label"]

    threads = [threading.Thread(target=read, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for step in range(300):
        np.testing.assert_array_equal(found[step], example_indices(step, examples=30, batch_size=10, seed=0))


@quick
@given(sizes, sizes, st.integers(1, 4), st.sampled_from([0, 2]))
def test_evaluation_sees_every_example_once_and_in_order(count, local, hosts, prefetch):
    batch_size = local * hosts
    examples = make_examples(count)
    passes = [
        list(eval_batches(examples, batch_size=batch_size, shard=Shard(index, hosts), prefetch=prefetch))
        for index in range(hosts)
    ]
    assert {len(batches) for batches in passes} == {eval_steps(count, batch_size)}
    seen = []
    for parts in zip(*passes, strict=True):
        whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        assert whole["image"].shape == (batch_size, 3, 2, 1)
        assert (whole["image"].dtype, whole["label"].dtype, whole["mask"].dtype) == (np.uint8, np.int32, np.float32)
        real = whole["mask"] == 1
        assert not whole["image"][~real].any()
        assert not whole["label"][~real].any()
        assert not whole["mask"][~real].any()
        np.testing.assert_array_equal(whole["image"][real][:, 0, 0, 0], whole["label"][real])
        seen.extend(whole["label"][real])
    assert seen == list(range(count))


def test_evaluation_can_be_passed_over_again():
    batches = eval_batches(make_examples(10), batch_size=4, shard=Shard(), put=lambda batch: batch)
    assert_same(list(batches), list(batches))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: train_batches(make_examples(30), batch_size=31, seed=0, shard=Shard()),
            "data.batch_size 31 is larger than the training set of 30 examples; choose 30 or less",
        ),
        (
            lambda: train_batches(make_examples(30), batch_size=10, seed=0, shard=Shard(0, 4)),
            "data.batch_size 10 is not divisible by 4 hosts",
        ),
        (
            lambda: eval_batches(make_examples(30), batch_size=9, shard=Shard(1, 2)),
            "eval.batch_size 9 is not divisible by 2 hosts",
        ),
        (lambda: Shard(2, 2), "host 2 of 2"),
    ],
)
def test_impossible_batches(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
