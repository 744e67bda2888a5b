"""Weights for other numbers of classes and of channels: what changes, and that all else stays."""

import dataclasses

import numpy as np
from random_weights import assert_same, cifar_weights, images, logits, random_variables

from cnnjax.models import create_model
from cnnjax.weights.adapt import adapt_channels, change_channels, change_classes
from cnnjax.weights.bundle import Weights
from cnnjax.weights.preprocessing import Preprocessing


def test_one_channel_answers_as_equal_colours():
    weights = dataclasses.replace(cifar_weights(), preprocessing=Preprocessing(size=(32, 32), mean=0.5, std=0.25))
    grey, (note,) = change_channels(weights, 1)
    assert note == "stem/conv/kernel: for 1 channels in place of 3, summed"
    assert grey.input_shape == (32, 32, 1)
    x = images((32, 32, 1))
    np.testing.assert_allclose(logits(grey, x), logits(weights, np.repeat(x, 3, -1)), rtol=1e-4, atol=1e-5)
    assert_same(grey.arrays, weights.arrays, but=("stem/conv/kernel",))
    same, notes = change_channels(weights, 3)
    assert same is weights
    assert notes == []


def test_many_channels_of_equal_values_answer_as_three():
    weights = cifar_weights()
    six, (note,) = change_channels(weights, 6)
    assert note == "stem/conv/kernel: for 6 channels in place of 3, repeated and multiplied by 3/6"
    x = images((32, 32, 1))
    expected = logits(weights, np.repeat(x, 3, -1))
    np.testing.assert_allclose(logits(six, np.repeat(x, 6, -1)), expected, rtol=1e-4, atol=1e-5)
    assert six.preprocessing.mean == (0.4, 0.5, 0.6, 0.4, 0.5, 0.6)


def test_kernels_are_repeated_in_turn():
    kernel = np.arange(6, dtype=np.float32).reshape(1, 1, 3, 2)
    assert adapt_channels(kernel, 1).tolist() == [[[[6, 9]]]]
    np.testing.assert_allclose(adapt_channels(kernel, 2)[0, 0], np.array([[0, 1], [2, 3]]) * 1.5)
    np.testing.assert_allclose(adapt_channels(kernel, 4)[0, 0], np.array([[0, 1], [2, 3], [4, 5], [0, 1]]) * 0.75)
    np.testing.assert_allclose(adapt_channels(kernel[:, :, :1], 3)[0, 0], np.array([[0, 1]] * 3) / 3)
    assert adapt_channels(kernel, 4).dtype == np.float32


def test_heads_are_found_wherever_they_are():
    fields = {"num_classes": 10, "width": 0.125}
    network = create_model("googlenet", **fields)
    weights = Weights("googlenet", fields, (224, 224, 3), random_variables(network, (224, 224, 3)))
    changed, (note,) = change_classes(weights, 5)
    new = [path for path, array in changed.arrays.items() if array.shape != weights.arrays[path].shape]
    assert len(new) == 6  # the head's and two auxiliary classifiers' kernel and bias
    assert note.startswith(f"{', '.join(new)}: new, for 5 classes")
    assert_same(changed.arrays, weights.arrays, but=new)
