"""Changed batches: what an example becomes depends on the run's key, the epoch and its number alone."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from pydantic import TypeAdapter, ValidationError

from cnnjax.augment.batches import make_batch_change
from cnnjax.config import Config
from cnnjax.config_augment import AnyAugmentation
from cnnjax.errors import ConfigError
from cnnjax.models import create_model
from cnnjax.train.losses import cross_entropy
from cnnjax.train.state import init_state
from cnnjax.train.step import BatchAxis, make_train_step
from cnnjax.train.task import DataFacts, make_task

KEY = jax.random.key(0)
RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (16, 12, 10, 3)).astype(np.uint8)
ENTRIES = [{"kind": "flip"}, {"kind": "rotation"}, {"kind": "crop", "padding": 2}, {"kind": "colour_jitter"}]


def entries(*given):
    return [TypeAdapter(AnyAugmentation).validate_python(each) for each in given]


def batch(indices, epoch: int = 0, **replaced):
    indices = np.asarray(indices)
    made = {
        "image": IMAGES[indices], "label": (indices % 4).astype(np.int32), "mask": np.ones(len(indices), np.float32),
        "epoch": np.full(len(indices), epoch, np.int32), "index": indices.astype(np.int32),
    }  # fmt: skip
    return {name: jnp.asarray(leaf) for name, leaf in (made | replaced).items()}


@pytest.fixture(scope="module")
def change():
    return jax.jit(make_batch_change(entries(*ENTRIES)))


def test_an_example_is_changed_alike_wherever_it_is(change):
    whole = change(batch(np.arange(16)), KEY)
    assert set(whole) == {"image", "label", "mask"}
    assert whole["image"].dtype == np.float32
    order = RANDOM.permutation(16)
    np.testing.assert_allclose(change(batch(order), KEY)["image"], whole["image"][order], atol=2e-6)
    np.testing.assert_allclose(change(batch([5]), KEY)["image"][0], whole["image"][5], atol=2e-6)


def test_epochs_and_keys_change_it_otherwise(change):
    first = change(batch(np.arange(16)), KEY)["image"]
    for other in (change(batch(np.arange(16), epoch=1), KEY), change(batch(np.arange(16)), jax.random.key(1))):
        assert min(np.abs(np.asarray(one - two)).max() for one, two in zip(first, other["image"], strict=True)) > 0.01


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_neighbours_are_blended_with_their_labels(kind):
    changed = jax.jit(make_batch_change(entries({"kind": kind, "alpha": 1.0})))(batch(np.arange(16)), KEY)
    pixels = IMAGES.astype(np.float32) / 255
    np.testing.assert_array_equal(changed["other_label"], (np.arange(16) ^ 1) % 4)
    np.testing.assert_array_equal(changed["share"][::2], changed["share"][1::2])
    if kind == "mixup":
        share = np.asarray(changed["share"])[:, None, None, None]
        expected = share * pixels + (1 - share) * pixels[np.arange(16) ^ 1]
        np.testing.assert_allclose(changed["image"], expected, atol=1e-6)
    else:
        own = np.isclose(changed["image"], pixels, atol=1e-6).all(-1).mean((1, 2))
        np.testing.assert_allclose(own, changed["share"], atol=0.02)


def test_what_could_not_be_read_is_not_blended():
    mask = np.ones(16, np.float32)
    mask[3] = 0
    changed = jax.jit(make_batch_change(entries({"kind": "mixup", "alpha": 1.0})))(batch(np.arange(16), mask=mask), KEY)
    np.testing.assert_array_equal(np.asarray(changed["share"])[[2, 3]], 1)
    np.testing.assert_allclose(changed["image"][2], IMAGES[2] / 255.0, atol=1e-6)
    assert (np.asarray(changed["share"])[[0, 4, 6]] < 1).all()


def test_labels_of_pixels_follow_their_image():
    labels = RANDOM.integers(0, 3, (16, 12, 10)).astype(np.int32)
    shown = np.repeat(labels[..., None] * 100, 3, -1).astype(np.uint8)
    changed = jax.jit(make_batch_change(entries({"kind": "flip", "vertical": 0.5}, {"kind": "crop", "padding": 3})))(
        batch(np.arange(16), image=shown, label=labels), KEY
    )
    np.testing.assert_array_equal(jnp.round(changed["image"][..., 0] * 2.55).astype(int), changed["label"])
    assert any(not np.array_equal(one, two) for one, two in zip(changed["label"], labels, strict=True))


def train_step(change=None, **fields):
    network = create_model("lenet5_modern", num_classes=4, **fields)
    optimizer = optax.sgd(0.1)
    return init_state(network, optimizer, 0, (32, 32, 3), ema=False), jax.jit(
        make_train_step(network, optimizer, cross_entropy, augment=change, axis=BatchAxis())
    )


def test_the_step_trains_on_mixed_labels():
    images = RANDOM.integers(0, 256, (16, 32, 32, 3)).astype(np.uint8)
    given = batch(np.arange(16), image=images)
    state, step = train_step(make_batch_change(entries({"kind": "mixup", "alpha": 1.0})))
    _, metrics = step(state, given)
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key), 2**32 - 1)
    mixed = make_batch_change(entries({"kind": "mixup", "alpha": 1.0}))(given, key)
    logits = (
        create_model("lenet5_modern", num_classes=4).apply({"params": state.params}, mixed["image"], train=False).logits
    )
    own, other = (
        optax.softmax_cross_entropy_with_integer_labels(logits, mixed[name]) for name in ("label", "other_label")
    )
    expected = mixed["share"] * own + (1 - mixed["share"]) * other
    assert float(metrics["loss"][0]) == pytest.approx(float(expected.sum()), rel=1e-4)
    chosen = np.where(mixed["share"] < 0.5, mixed["other_label"], mixed["label"])
    assert float(metrics["accuracy"][0]) == float((logits.argmax(-1) == chosen).sum())


def test_changing_nothing_trains_as_without():
    images = RANDOM.integers(0, 256, (16, 32, 32, 3)).astype(np.uint8)
    given = batch(np.arange(16), image=images)
    state, step = train_step(make_batch_change(entries({"kind": "flip", "horizontal": 0.0})))
    _, plain = train_step()
    without = {name: given[name] for name in ("image", "label", "mask")}
    for one, two in zip(jax.tree.leaves(step(state, given)), jax.tree.leaves(plain(state, without)), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"kind": "rotate"}, "'rotate'"),
        ({"kind": "rotation", "degrees": [10, -10]}, "expected the lower end first, got 10 and -10"),
        ({"kind": "flip", "horizontal": 2}, "less than or equal to 1"),
        ({"kind": "zoom", "factor": [0, 1]}, "greater than 0"),
        ({"kind": "mixup", "beta": 1}, "Extra inputs"),
        ({"kind": "box_blur", "radius": [-2, 1]}, "greater than or equal to 0"),
    ],
)
def test_entries_are_checked(given, sentence):
    with pytest.raises(ValidationError, match=sentence):
        Config.model_validate({"data": {"augment": [given]}})


def test_blending_needs_pairs_and_labels_of_images():
    with pytest.raises(ValidationError, match=r"8 is not divisible by two for mixup or cutmix on each device = 16"):
        Config.model_validate({"data": {"augment": [{"kind": "mixup"}], "batch_size": 8}, "parallel": {"devices": 8}})
    source = {"kind": "digits_on_photographs", "image_size": 64}
    data = {"source": source, "image_size": None, "augment": [{"kind": "cutmix"}]}
    config = Config.model_validate({"model": {"name": "unet"}, "data": data})
    with pytest.raises(ConfigError, match=r"data.augment: mixup and cutmix blend images' labels, not those of pixels"):
        make_task(config, DataFacts(("a", "b"), (64, 64, 3), 1000, 100, segmentation=True))
