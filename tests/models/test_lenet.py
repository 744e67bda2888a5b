"""LeNet-5 against an independent computation, and against what the paper says of it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from definitions import as_float64, connect, convolve, pool, relu

from cnnjax.errors import ConfigError
from cnnjax.models import create_model
from cnnjax.models.lenet import C3_TABLE
from cnnjax.nn.digit_codes import digit_codes

# Table I as the paper prints it: a row for each map of S2, a column for each of C3.
TABLE_I = (
    "X...XXX..XXXX.XX",
    "XX...XXX..XXXX.X",
    "XXX...XXX..X.XXX",
    ".XXX..XXXX..X.XX",
    "..XXX..XXXX.XX.X",
    "...XXX..XXXX.XXX",
)


def images(*shape):
    return np.random.default_rng(5).uniform(-0.1, 1.175, shape).astype(np.float32)


def initialised(network, sample, seed=0):
    return network.init(jax.random.key(seed), sample, train=False)


def randomised(variables, seed=1):
    """The same tree with all leaves random, so that none is zero or symmetric by chance."""
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: random.normal(0, 0.25, leaf.shape).astype(np.float32), variables)


def squash(x):
    return 1.7159 * np.tanh(x * 2 / 3)


def published_in_numpy(params, x):
    """Section II-B in float64, C3 map by map; returns every layer's values."""
    layers = {}
    p = as_float64(params)

    def subsample(x, layer):
        return squash(pool(x, 2, 2, np.sum) * p[layer]["coefficient"] + p[layer]["bias"])

    layers["c1"] = squash(convolve(x, **p["c1"], padding="valid"))
    layers["s2"] = subsample(layers["c1"], "s2")
    c3, used = [], 0
    for column in range(16):
        seen = [row for row in range(6) if TABLE_I[row][column] == "X"]
        kernel = p["c3"]["kernel"][:, :, used : used + len(seen)]
        used += len(seen)
        c3.append(convolve(layers["s2"][..., seen], kernel[..., None], p["c3"]["bias"][column], padding="valid"))
    assert used == 60
    layers["c3"] = squash(np.concatenate(c3, -1))
    layers["s4"] = subsample(layers["c3"], "s4")
    layers["c5"] = squash(convolve(layers["s4"], **p["c5"], padding="valid"))
    layers["f6"] = squash(connect(layers["c5"], p["f6"]))
    outputs = [[((f6 - code) ** 2).sum() for code in digit_codes()] for f6 in layers["f6"][:, 0, 0]]
    return layers, -np.array(outputs)


def modern_in_numpy(params, x):
    layers = {}
    p = as_float64(params)
    layers["c1"] = relu(convolve(x, **p["c1"], padding="valid"))
    layers["s2"] = pool(layers["c1"], 2, 2)
    layers["c3"] = relu(convolve(layers["s2"], **p["c3"], padding="valid"))
    layers["s4"] = pool(layers["c3"], 2, 2)
    layers["c5"] = relu(convolve(layers["s4"], **p["c5"], padding="valid"))
    layers["f6"] = relu(connect(layers["c5"], p["f6"]))
    return layers, connect(layers["f6"][:, 0, 0], p["output"])


@pytest.mark.parametrize(
    ("name", "in_numpy", "channels"),
    [
        ("lenet5", published_in_numpy, 1),
        ("lenet5", published_in_numpy, 3),
        ("lenet5_modern", modern_in_numpy, 1),
        ("lenet5_modern", modern_in_numpy, 3),
    ],
)
@pytest.mark.parametrize("lowering", ["auto", "native"])
def test_every_layer_equals_an_independent_computation(name, in_numpy, channels, lowering):
    network, x = create_model(name, lowering=lowering), images(3, 32, 32, channels)
    variables = randomised(initialised(network, x))
    outputs = network.apply(variables, x, train=False)
    layers, logits = in_numpy(variables["params"], x)
    assert set(outputs.features) == set(layers)
    for layer, expected in layers.items():
        np.testing.assert_allclose(
            outputs.features[layer], expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max(), err_msg=layer
        )
    np.testing.assert_allclose(outputs.logits, logits, rtol=1e-5, atol=1e-5 * np.abs(logits).max())


def test_connection_table_is_the_papers():
    columns = zip(*TABLE_I, strict=True)
    assert [tuple(row for row, mark in enumerate(column) if mark == "X") for column in columns] == list(C3_TABLE)


def test_gradient_of_c3_reaches_its_kernels_only():
    network, x = create_model("lenet5"), images(2, 32, 32, 1)
    variables = initialised(network, x)
    gradient = jax.grad(lambda v: network.apply(v, x, train=True).logits.sum())(variables)["params"]
    assert gradient["c3"]["kernel"].shape == (5, 5, 60)
    assert np.all(np.abs(gradient["c3"]["kernel"]).max((0, 1)) > 0)


def test_codes_are_ten_distinct_pictures_of_the_papers_size():
    codes = digit_codes()
    assert codes.shape == (10, 84)
    assert set(np.unique(codes)) == {-1, 1}
    assert len(np.unique(codes, axis=0)) == 10
    # As drawn: 1 has a stem in columns 3 and 4 over ten rows, 7 a full top row, 8 two equal sides.
    pictures = codes.reshape(10, 12, 7)
    assert (pictures[1, :10, 3:5] == 1).all()
    assert (pictures[7, 0] == 1).all()
    np.testing.assert_array_equal(pictures[8], pictures[8][:, ::-1])
    np.testing.assert_array_equal(pictures[0], pictures[0][:, ::-1])
    # Digits sit in the upper ten rows; only 4 has a descender.
    assert (np.delete(pictures, 4, axis=0)[:, 10:] == -1).all()


def test_the_nearest_code_wins_and_its_logit_is_zero_at_the_code():
    network = create_model("lenet5")
    x = images(1, 32, 32, 1)
    variables = initialised(network, x)
    params = variables["params"]
    for digit in (0, 4, 9):
        reached = np.arctanh(digit_codes()[digit] / 1.7159) * 3 / 2
        f6 = {"kernel": jnp.zeros_like(params["f6"]["kernel"]), "bias": jnp.asarray(reached)}
        logits = network.apply({"params": {**params, "f6": f6}}, x, train=False).logits[0]
        assert np.argmax(logits) == digit
        np.testing.assert_allclose(logits[digit], 0, atol=1e-8)
        assert np.all(np.delete(logits, digit) <= -4)


@pytest.mark.parametrize("layer", ["c1", "s2", "c3", "s4", "c5", "f6"])
def test_published_initialisation_fills_its_range(layer):
    params = initialised(create_model("lenet5"), images(1, 32, 32, 1))["params"][layer]
    fan_in = {"c1": 25, "s2": 4, "s4": 4, "c5": 400, "f6": 120}
    if layer == "c3":
        inputs = np.array([len(maps) for maps in C3_TABLE])
        limits = {"kernel": 2.4 / 25 / np.repeat(inputs, inputs), "bias": 2.4 / 25 / inputs}
    else:
        limits = dict.fromkeys(params, 2.4 / fan_in[layer])
    for leaf, limit in limits.items():
        relative = np.asarray(params[leaf]) / limit
        assert np.abs(relative).max() <= 1
        assert np.abs(relative).max() > (0.9 if relative.size > 50 else 0.5)
        if relative.size > 500:
            np.testing.assert_allclose(relative.std(), 1 / np.sqrt(3), rtol=0.05)


@pytest.mark.parametrize(("initialization", "gain"), [("he_normal", 2), ("lecun_normal", 1)])
@pytest.mark.parametrize("c3", ["table", "full"])
def test_normal_initialisations_have_their_variance(initialization, gain, c3):
    network = create_model("lenet5", initialization=initialization, c3=c3)
    params = initialised(network, images(1, 32, 32, 1))["params"]
    np.testing.assert_allclose(params["c5"]["kernel"].std(), np.sqrt(gain / 400), rtol=0.02)
    np.testing.assert_allclose(params["s2"]["coefficient"], 1 / 4)
    fan_in = (
        25 * np.repeat([len(maps) for maps in C3_TABLE], [len(maps) for maps in C3_TABLE]) if c3 == "table" else 150
    )
    np.testing.assert_allclose((params["c3"]["kernel"] / np.sqrt(gain / fan_in)).std(), 1, rtol=0.05)
    assert all(not np.any(params[layer]["bias"]) for layer in params)


def test_full_c3_holds_the_table_as_a_special_case():
    x = images(2, 32, 32, 1)
    table, full = create_model("lenet5"), create_model("lenet5", c3="full")
    variables = randomised(initialised(table, x))
    dense, used = np.zeros((5, 5, 6, 16), np.float32), 0
    for column, maps in enumerate(C3_TABLE):
        dense[:, :, maps, column] = variables["params"]["c3"]["kernel"][:, :, used : used + len(maps)]
        used += len(maps)
    c3 = {"kernel": dense, "bias": variables["params"]["c3"]["bias"]}
    same = full.apply({"params": {**variables["params"], "c3": c3}}, x, train=False)
    expected = table.apply(variables, x, train=False)
    np.testing.assert_allclose(same.logits, expected.logits, rtol=1e-5)


def test_norm_keeps_running_statistics_and_names():
    network, x = create_model("lenet5_modern", norm="batch"), images(4, 32, 32, 1)
    variables = initialised(network, x)
    assert set(variables["batch_stats"]) == {"c1_norm", "c3_norm", "c5_norm"}
    assert set(variables["params"]) - {"c1_norm", "c3_norm", "c5_norm"} == {"c1", "c3", "c5", "f6", "output"}
    outputs, updated = network.apply(variables, x, train=True, mutable=["batch_stats"])
    changed = jax.tree.map(lambda old, new: bool(np.any(old != new)), variables["batch_stats"], updated["batch_stats"])
    assert all(jax.tree.leaves(changed))
    evaluated = network.apply({**variables, **updated}, x, train=False)
    assert not np.allclose(outputs.logits, evaluated.logits)


def test_dropout_drops_in_training_only_and_by_its_key():
    network, x = create_model("lenet5_modern", dropout=0.5), images(64, 32, 32, 1)
    variables = randomised(initialised(network, x))
    evaluated = network.apply(variables, x, train=False)
    plain = create_model("lenet5_modern").apply(variables, x, train=True)
    np.testing.assert_allclose(evaluated.logits, plain.logits, rtol=1e-5, atol=1e-4)
    first, again, other = (
        network.apply(variables, x, train=True, rngs={"dropout": jax.random.key(k)}) for k in (1, 1, 2)
    )
    np.testing.assert_array_equal(first.logits, again.logits)
    assert not np.allclose(first.logits, other.logits)
    alive = np.asarray(evaluated.features["c5"]) > 0
    dropped = np.asarray(first.features["c5"])[alive] == 0
    assert 0.45 < dropped.mean() < 0.55
    kept = np.asarray(first.features["c5"])[alive][~dropped]
    np.testing.assert_allclose(kept, 2 * np.asarray(evaluated.features["c5"])[alive][~dropped], rtol=1e-5)


@pytest.mark.parametrize("size", [(16, 16), (28, 28), (20, 32)])
def test_other_sizes_change_c5_alone(size):
    x = images(1, *size, 1)
    shapes = jax.eval_shape(functools.partial(create_model("lenet5_modern").init, train=False), jax.random.key(0), x)
    published = initialised(create_model("lenet5_modern"), images(1, 32, 32, 1))["params"]
    for layer, leaves in shapes["params"].items():
        for leaf, value in leaves.items():
            expected = published[layer][leaf].shape
            if (layer, leaf) == ("c5", "kernel"):
                expected = (*(((side - 4) // 2 - 4) // 2 for side in size), 16, 120)
            assert value.shape == expected


@pytest.mark.parametrize("shape", [(2, 15, 32, 1), (2, 32, 8, 1), (32, 32, 1)])
def test_images_that_do_not_fit_raise(shape):
    with pytest.raises(ConfigError, match=r"of at least 16x16, 32x32 in the paper; got \("):
        jax.eval_shape(functools.partial(create_model("lenet5").init, train=False), jax.random.key(0), images(*shape))


@pytest.mark.parametrize("classes", [9, 11, 47])
def test_rbf_output_has_ten_classes_only(classes):
    with pytest.raises(ConfigError, match=f"ten digits only, got num_classes {classes}; choose head: linear"):
        create_model("lenet5", num_classes=classes)
    assert create_model("lenet5", num_classes=classes, head="linear").num_classes == classes
