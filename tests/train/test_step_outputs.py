"""Steps of networks with more than one output: auxiliary classifiers, and a class for each pixel."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from cnnjax.config_files import load_config
from cnnjax.errors import ConfigError
from cnnjax.nn.network import Network, Outputs
from cnnjax.train.losses import cross_entropy
from cnnjax.train.reporting import Sums
from cnnjax.train.state import init_state
from cnnjax.train.step import make_eval_step, make_train_step, normalize
from cnnjax.train.task import DataFacts, make_task

SHAPE = (5, 5, 2)


class WithAuxiliaries(Network):
    """A linear classifier and, unless told otherwise, two auxiliary ones beside it."""

    auxiliaries: bool = True

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> Outputs:
        """(batch, height, width, channels) to `Outputs`."""
        flat = images.reshape(len(images), -1)
        heads = {name: nn.Dense(self.num_classes, name=name)(flat) for name in ("head", "first", "second")}
        aux = {name: heads[name] for name in ("first", "second")} if train and self.auxiliaries else {}
        return Outputs(logits=heads["head"], aux=aux, features={})


class ForPixels(Network):
    """A class for each pixel but those at the border."""

    labels_pixels = True

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> Outputs:
        """(batch, height, width, channels) to `Outputs`."""
        return Outputs(logits=nn.Conv(3, (3, 3), padding="VALID")(images), aux={}, features={})


def batch(masked=2, pixels=False):
    random = np.random.default_rng(0)
    return {
        "image": random.integers(0, 256, (8, *SHAPE), np.uint8),
        "label": random.integers(0, 3, (8, 5, 5) if pixels else 8, np.int32),
        "mask": (np.arange(8) < 8 - masked).astype(np.float32),
    }


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_auxiliary_classifiers_add_their_weighted_loss(recorder, weight, accumulate):
    network, examples = WithAuxiliaries(num_classes=3), batch()
    state = init_state(network, recorder, 0, SHAPE, ema=False)
    step = make_train_step(network, recorder, cross_entropy, auxiliary_weight=weight, accumulate=accumulate)
    new, metrics = step(state, examples)

    def losses(params):
        outputs = network.apply({"params": params}, normalize(examples["image"][:6], 0.0, 1.0), train=True)
        return [
            optax.softmax_cross_entropy_with_integer_labels(logits, examples["label"][:6]).mean()
            for logits in (outputs.logits, *outputs.aux.values())
        ]

    main, *auxiliary = losses(state.params)
    assert float(metrics["loss"][0]) == pytest.approx(6 * float(main), rel=1e-5)
    assert float(metrics["auxiliary_loss"][0]) == pytest.approx(6 * float(sum(auxiliary)), rel=1e-5)
    assert float(metrics["loss"][1]) == float(metrics["auxiliary_loss"][1]) == 6
    expected = jax.grad(lambda params: losses(params)[0] + weight * sum(losses(params)[1:]))(state.params)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), new.opt_state, expected)
    evaluated = make_eval_step(network, cross_entropy)(state.params, {}, examples)
    assert set(evaluated) == {"loss", "accuracy"}


def test_without_auxiliary_classifiers_there_is_no_loss_of_theirs(recorder):
    network = WithAuxiliaries(num_classes=3, auxiliaries=False)
    state = init_state(network, recorder, 0, SHAPE, ema=False)
    _, metrics = make_train_step(network, recorder, cross_entropy)(state, batch())
    assert "loss" in metrics
    assert "auxiliary_loss" not in metrics


@pytest.mark.parametrize("masked", [0, 3])
def test_a_segmentations_metrics(recorder, masked):
    network, examples = ForPixels(num_classes=3), batch(masked, pixels=True)
    state = init_state(network, recorder, 0, SHAPE, ema=False)
    kept = 8 - masked
    logits = np.asarray(
        network.apply({"params": state.params}, examples["image"] / np.float32(255), train=False).logits
    )
    labels = examples["label"][:kept, 1:-1, 1:-1]  # the output has no border
    logits, chosen = logits[:kept], logits[:kept].argmax(-1)
    losses = optax.softmax_cross_entropy_with_integer_labels(jnp.asarray(logits), labels).mean((1, 2))
    ratios = [((chosen == k) & (labels == k)).sum() / ((chosen == k) | (labels == k)).sum() for k in range(3)]

    _, trained = make_train_step(network, recorder, cross_entropy)(state, examples)
    evaluated = make_eval_step(network, cross_entropy)(state.params, {}, examples)
    for metrics in (trained, evaluated):
        sums = Sums()
        sums.add({name: (float(total), float(count)) for name, (total, count) in metrics.items()})
        means = sums.means()
        assert sums.count("loss") == kept
        assert means["loss"] == pytest.approx(float(losses.mean()), rel=1e-5)
        assert means["accuracy"] == pytest.approx((chosen == labels).mean(), rel=1e-5)
        assert sums.class_iou() == pytest.approx(ratios, rel=1e-5)
        assert means["mean_iou"] == pytest.approx(np.mean(ratios), rel=1e-5)
    assert set(means) == {"loss", "accuracy", "mean_iou"}


def test_the_loss_of_pixels_is_differentiated(recorder):
    network, examples = ForPixels(num_classes=3), batch(3, pixels=True)
    state = init_state(network, recorder, 0, SHAPE, ema=False)
    new, _ = make_train_step(network, recorder, cross_entropy)(state, examples)

    def loss(params):
        logits = network.apply({"params": params}, examples["image"][:5] / np.float32(255), train=True).logits
        return optax.softmax_cross_entropy_with_integer_labels(logits, examples["label"][:5, 1:-1, 1:-1]).mean()

    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), new.opt_state, jax.grad(loss)(state.params)
    )


def test_a_class_that_does_not_occur_counts_nowhere():
    sums = Sums({"iou of class 0": (3, 4), "iou of class 1": (0, 0), "iou of class 2": (1, 4), "loss": (1, 1)})
    assert sums.means() == {"loss": 1.0, "mean_iou": 0.5}
    assert sums.class_iou() == [0.75, None, 0.25]
    assert Sums({"loss": (1, 1)}).class_iou() == []


def test_images_classes_and_pixels_classes_do_not_mix():
    facts = DataFacts(("a", "b"), (32, 32, 1), 1000, 100, segmentation=True)
    with pytest.raises(ConfigError, match=r"^model\.name: lenet5_modern gives each image a class, and the data"):
        make_task(load_config(), facts)
