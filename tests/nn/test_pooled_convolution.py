"""The layer of LeNet-5 that convolves and pools at once."""

import jax
import numpy as np
import pytest
from flax import linen as nn

from cnnjax.nn.pooled_convolution import PooledConvolution
from cnnjax.ops.pooling import max_pool

INITIALIZERS = {"kernel_init": nn.initializers.he_normal(), "bias_init": nn.initializers.normal(1)}


@pytest.mark.parametrize("lowering", ["auto", "native"])
def test_it_is_a_convolution_and_a_pool_with_the_same_parameters(lowering):
    images = np.random.default_rng(0).normal(size=(2, 14, 14, 3)).astype(np.float32)
    convolution = nn.Conv(6, (5, 5), padding="VALID", **INITIALIZERS)
    layer = PooledConvolution(6, 5, 2, **INITIALIZERS, lowering=lowering)
    expected, variables = (each.init(jax.random.key(0), images) for each in (convolution, layer))
    jax.tree.map(np.testing.assert_array_equal, variables, expected)
    outputs, largest = layer.apply(variables, images)
    of_convolution = convolution.apply(expected, images)
    np.testing.assert_allclose(outputs, of_convolution, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(largest, max_pool(of_convolution, 2, 2), rtol=1e-5, atol=1e-5)
