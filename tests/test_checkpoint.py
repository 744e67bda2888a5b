"""Checkpoints: what is kept, what is refused, and what is noticed."""

import gc
import logging
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cnnjax.checkpoint import Checkpoints
from cnnjax.config import CheckpointConfig
from cnnjax.errors import RunError, TrainingError
from cnnjax.train.state import TrainState


def make_state(step: int, value: float = 1.0) -> TrainState:
    return TrainState(
        step=jnp.asarray(step, jnp.int32),
        key=jnp.asarray([1, 2], jnp.uint32),
        params={"kernel": jnp.full((4, 3), value), "half": jnp.full((2,), value, jnp.bfloat16)},
        batch_stats={},
        opt_state=(jnp.asarray(step),),
        ema=None,
    )


def save_all(folder, accuracies, **settings):
    checkpoints = Checkpoints(folder, CheckpointConfig(**settings))
    for step, accuracy in accuracies.items():
        checkpoints.save(make_state(step, float(step)), {"iterator": {"next_index": step}}, accuracy)
    checkpoints.close()


@pytest.mark.parametrize(
    ("keep_last", "keep_best", "kept"),
    [(1, 0, [5]), (2, 0, [4, 5]), (1, 1, [2, 5]), (2, 2, [2, 3, 4, 5]), (1, 2, [2, 3, 5]), (9, 0, [1, 2, 3, 4, 5])],
)
def test_the_last_and_the_best_are_kept(tmp_path, keep_last, keep_best, kept):
    accuracies = {1: 0.1, 2: 0.9, 3: 0.8, 4: None, 5: 0.2}
    save_all(tmp_path / "c", accuracies, keep_last=keep_last, keep_best=keep_best)
    again = Checkpoints(tmp_path / "c", CheckpointConfig(), read_only=True)
    assert again.steps() == kept
    assert again.best() == (2 if 2 in kept else max(kept, key=lambda step: (accuracies[step] or -1, step)))
    again.close()


def test_a_restarted_process_still_knows_which_was_best(tmp_path):
    save_all(tmp_path, {1: 0.9, 2: 0.5}, keep_last=1, keep_best=1)
    save_all(tmp_path, {3: 0.6, 4: 0.7}, keep_last=1, keep_best=1)
    checkpoints = Checkpoints(tmp_path, CheckpointConfig(), read_only=True)
    assert checkpoints.steps() == [1, 4]
    checkpoints.close()


def test_everything_comes_back_bit_for_bit_and_with_its_progress(tmp_path):
    save_all(tmp_path, {3: 0.25})
    checkpoints = Checkpoints(tmp_path, CheckpointConfig(), read_only=True)
    restored = checkpoints.restore(make_state(0))
    assert restored is not None
    assert restored.step == 3
    assert restored.progress == {"iterator": {"next_index": 3}}
    assert restored.warnings == ()
    expected = make_state(3, 3.0)
    assert jax.tree.structure(restored.state) == jax.tree.structure(expected)
    for found, leaf in zip(jax.tree.leaves(restored.state), jax.tree.leaves(expected), strict=True):
        assert found.dtype == leaf.dtype
        assert np.asarray(found).tobytes() == np.asarray(leaf).tobytes()
    checkpoints.close()


@pytest.mark.parametrize("step", [None, 4])
def test_a_whole_checkpoint_in_another_steps_place_is_not_taken_for_that_steps(tmp_path, step):
    save_all(tmp_path, {1: 0.9, 2: 0.5})
    (tmp_path / "1").rename(tmp_path / "4")
    checkpoints = Checkpoints(tmp_path, CheckpointConfig(), read_only=True)
    if step is None:
        restored = checkpoints.restore(make_state(0))
        assert restored is not None
        assert restored.step == int(restored.state.step) == 2
        assert restored.warnings == ("checkpoint 4 cannot be read (it is that of step 1)",)
    else:
        with pytest.raises(RunError, match=r"checkpoint 4 cannot be read \(it is that of step 1\)"):
            checkpoints.restore(make_state(0), step)
    with pytest.raises(RunError, match="the best one is unknown"):
        checkpoints.best()
    checkpoints.close()


@pytest.mark.parametrize("content", ['{"init_timestamp_nsecs": "x"}', '{"metrics": [1]}', '{"item_handlers": true}'])
def test_what_orbax_itself_stumbles_over_is_a_sentence(tmp_path, content):
    save_all(tmp_path, {1: 0.9})
    (tmp_path / "1" / "_CHECKPOINT_METADATA").write_text(content)
    with pytest.raises(RunError, match=r"cannot be used: Object must be .*; move what is damaged out of") as caught:
        Checkpoints(tmp_path, CheckpointConfig(), read_only=True)
    assert "<class" not in str(caught.value)


def test_restores_onto_other_devices(tmp_path):
    save_all(tmp_path, {3: None})
    replicated = NamedSharding(Mesh(np.array(jax.devices()[:4]), ("data",)), PartitionSpec())
    checkpoints = Checkpoints(tmp_path, CheckpointConfig(), read_only=True)
    restored = checkpoints.restore(jax.device_put(make_state(0), replicated))
    assert restored is not None
    assert all(leaf.sharding == replicated for leaf in jax.tree.leaves(restored.state))
    np.testing.assert_array_equal(restored.state.params["kernel"], np.full((4, 3), 3.0))
    checkpoints.close()


def test_another_shape_is_refused_not_returned(tmp_path):
    save_all(tmp_path, {3: None})
    checkpoints = Checkpoints(tmp_path, CheckpointConfig(), read_only=True)
    other = make_state(0).replace(params={"kernel": jnp.zeros((5, 3)), "half": jnp.zeros((2,), jnp.bfloat16)})
    with pytest.raises(RunError, match="checkpoint 3 cannot be read"):
        checkpoints.restore(other)
    checkpoints.close()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_state_that_is_not_finite_is_never_written(tmp_path, value):
    checkpoints = Checkpoints(tmp_path, CheckpointConfig())
    checkpoints.save(make_state(1), {}, None)
    with pytest.raises(TrainingError, match=r"not finite after step 2: \.params"):
        checkpoints.save(make_state(2, value), {}, None)
    assert checkpoints.steps() == [1]
    checkpoints.close()


def test_an_empty_folder_has_nothing(tmp_path):
    checkpoints = Checkpoints(tmp_path, CheckpointConfig())
    assert checkpoints.steps() == []
    assert checkpoints.best() is None
    assert checkpoints.restore(make_state(0)) is None
    checkpoints.close()


def test_saving_copies_so_that_training_may_go_on(tmp_path):
    """A donated buffer is overwritten while the files are still being written."""
    checkpoints = Checkpoints(tmp_path, CheckpointConfig())
    advance = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf + leaf.dtype.type(1), state), donate_argnums=0)
    state = make_state(1).replace(params={"kernel": jnp.ones((2000, 500)), "half": jnp.ones((2,), jnp.bfloat16)})
    checkpoints.save(jax.tree.map(jnp.copy, state), {}, None)
    for _ in range(20):
        state = advance(state)
    jax.block_until_ready(state)
    checkpoints.wait()
    restored = checkpoints.restore(jax.tree.map(jnp.copy, state))
    assert restored is not None
    assert (np.asarray(restored.state.params["kernel"]) == 1).all()
    checkpoints.close()


def test_a_coroutine_that_a_failed_read_leaves_unstarted_is_no_news(tmp_path, monkeypatch):
    async def load() -> None: ...

    def fail(self, step, like):
        unstarted = [load()]
        unstarted.append(unstarted)  # a cycle, which waits for the garbage collector
        raise ValueError("half of it is lost")

    save_all(tmp_path, {1: 0.5})
    monkeypatch.setattr(Checkpoints, "_read", fail)
    checkpoints = Checkpoints(tmp_path, CheckpointConfig(), read_only=True)
    with warnings.catch_warnings(record=True) as told:
        with pytest.raises(RunError, match="half of it is lost"):
            checkpoints.restore(make_state(0))
        gc.collect()
        assert told == []
        load()  # one's own is still told of
        gc.collect()
        assert [str(each.message) for each in told if "never awaited" in str(each.message)]
    checkpoints.close()


def test_of_many_reads_that_fail_only_one_is_told_of(tmp_path, caplog):
    save_all(tmp_path, {1: 0.9, 2: 0.5})
    (data,) = (path for path in (tmp_path / "2" / "state" / "d").iterdir() if path.is_file())
    data.write_bytes(data.read_bytes()[:10])
    checkpoints = Checkpoints(tmp_path, CheckpointConfig(), read_only=True)
    restored = checkpoints.restore(make_state(0))
    assert restored is not None
    assert restored.step == 1
    checkpoints.close()
    gc.collect()
    assert not caplog.records


def test_asyncio_is_heard_of_all_but_orbax(tmp_path, caplog):
    Checkpoints(tmp_path, CheckpointConfig()).close()
    for file, heard in (("/lib/orbax/checkpoint/serialization.py", False), ("/home/me/orbaxes.py", True)):
        caplog.clear()
        try:
            exec(compile("raise Exception('of a read')", file, "exec"))
        except Exception as error:
            logging.getLogger("asyncio").error("_GatheringFuture exception was never retrieved", exc_info=error)
        assert bool(caplog.records) == heard
    asyncio_log = logging.getLogger("asyncio")
    for words, heard in (("DATA_LOSS: Error opening a driver [tensorstore_spec='{}']", False), ("a store", True)):
        caplog.clear()
        asyncio_log.error(f"Future exception was never retrieved\nfuture: <Future exception=ValueError({words!r})>")
        assert bool(caplog.records) == heard
