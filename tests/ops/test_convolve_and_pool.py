"""A convolution and the pooling of its outputs in one: the same numbers and gradients as one after the other."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from cnnjax.ops.conv import convolve
from cnnjax.ops.convolve_and_pool import convolve_and_pool, fold, fold_kernel, unfold
from cnnjax.ops.pooling import max_pool

# (height and width, channels, size of the kernel, features, window)
FOLDED = [
    ((32, 32), 1, 5, 6, 2),  # LeNet-5's
    ((14, 14), 6, 5, 16, 2),
    ((8, 14), 3, 3, 4, 2),
    ((9, 13), 2, 4, 3, 2),  # its last blocks are filled up
    ((10, 16), 2, 2, 5, 3),
]
PLAIN = [((9, 13), 2, 5, 3, 2), ((14, 14), 2, 5, 17, 2)]  # windows that do not fit, many features


def arrays(size, channels, extent, features, dtype=jnp.float32):
    random = np.random.default_rng(0)
    shapes = ((3, *size, channels), (extent, extent, channels, features), (features,))
    return tuple(jnp.asarray(random.normal(size=shape), dtype) for shape in shapes)


def one_after_the_other(images, kernel, bias, window):
    outputs = convolve(images, kernel, lowering="native") + bias
    return outputs, max_pool(outputs, window, window)


def mixed(function, weights, *given):
    """A number that depends on both results, on the outputs by one weight, on the largest by the other."""
    outputs, largest = function(*given)
    return weights[0] * jnp.sin(outputs).sum() + weights[1] * jnp.sin(3 * largest).sum()


def assert_near(found, expected):
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5 * np.abs(other).max())


@pytest.mark.parametrize(("size", "channels", "extent", "features", "window"), FOLDED + PLAIN)
@pytest.mark.parametrize("lowering", ["auto", "native"])
def test_results_and_gradients(size, channels, extent, features, window, lowering):
    given = arrays(size, channels, extent, features)
    ours = functools.partial(convolve_and_pool, window=window, lowering=lowering)
    expected = functools.partial(one_after_the_other, window=window)
    assert_near(jax.jit(ours)(*given), expected(*given))
    for weights in ((0.0, 1.0), (1.0, 1.0)):
        gradients = [jax.grad(functools.partial(mixed, each, weights), (0, 1, 2))(*given) for each in (ours, expected)]
        assert_near(*gradients)


def test_the_gradient_of_either_result_alone():
    given = arrays(*FOLDED[2][:4])
    for result in (0, 1):
        found, expected = (
            jax.grad(lambda *given, f=f: jnp.sin(f(*given, 2)[result]).sum(), (0, 1, 2))(*given)  # noqa: B023 -- now
            for f in (convolve_and_pool, one_after_the_other)
        )
        assert_near(found, expected)


def test_derivatives_of_derivatives():
    given = arrays(*FOLDED[2][:4])

    def curvature(function):
        def slope(*given):
            gradients = jax.grad(functools.partial(mixed, function, (1.0, 1.0)), (0, 1, 2))(*given)
            return sum(jnp.square(each).sum() for each in gradients)

        return jax.grad(slope, (0, 1, 2))(*given)

    ours, expected = (functools.partial(each, window=2) for each in (convolve_and_pool, one_after_the_other))
    assert_near(curvature(ours), curvature(expected))


def test_the_first_of_equal_outputs_takes_the_gradient():
    images, kernel, bias = jnp.ones((1, 6, 6, 1)), jnp.ones((3, 3, 1, 2)), jnp.zeros(2)
    found, expected = (
        jax.grad(lambda images, f=f: f(images, kernel, bias, 2)[1].sum())(images)
        for f in (convolve_and_pool, one_after_the_other)
    )
    np.testing.assert_array_equal(found, expected)


def test_half_precision_is_not_folded():
    given = arrays(*FOLDED[0][:4], dtype=jnp.bfloat16)
    for one, other in zip(convolve_and_pool(*given, 2), one_after_the_other(*given, 2), strict=True):
        assert one.dtype == jnp.bfloat16
        np.testing.assert_array_equal(one, other)


def test_folding_makes_channels_of_neighbours():
    images = arrays((6, 9), 2, 3, 1)[0]
    folded = fold(images, 3)
    assert folded.shape == (3, 2, 3, 18)
    np.testing.assert_array_equal(folded[:, 1, 2, :2], images[:, 3, 6])
    np.testing.assert_array_equal(folded[:, 1, 2, -2:], images[:, 5, 8])
    np.testing.assert_array_equal(unfold(folded, 3), images)


def test_a_folded_kernel_has_the_published_one_once_for_each_output():
    kernel = arrays((6, 6), 1, 5, 6)[1]
    folded = fold_kernel(kernel, 2)
    assert folded.shape == (3, 3, 4, 24)
    np.testing.assert_allclose(folded.sum((0, 1, 2)), np.tile(kernel.sum((0, 1, 2)), 4), rtol=1e-5)


def test_on_a_cpu_there_is_one_convolution_of_the_folded_images_and_elsewhere_the_plain_one():
    given = arrays(*FOLDED[0][:4])
    run = jax.jit(lambda *given: convolve_and_pool(*given, 2)[1])
    of_cpus, of_tpus = (export.export(run, platforms=[each])(*given).mlir_module() for each in ("cpu", "tpu"))
    assert "tensor<3x16x16x4xf32>" in of_cpus
    assert "reduce_window" not in of_cpus
    assert "tensor<3x16x16x4xf32>" not in of_tpus
    assert "reduce_window" in of_tpus
