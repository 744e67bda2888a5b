"""Convolutions in programs that are compiled to oneDNN's routines, and who gets such programs."""

import functools
import platform as machine

import jax
import pytest
from test_conv import CASES, cases_and_forms, close, geometry_of, gradients, operands

from cnnjax.config_files import load_config
from cnnjax.errors import ConfigError
from cnnjax.models import create_model
from cnnjax.ops import onednn
from cnnjax.ops.conv_forms import FORMS
from cnnjax.parallel import make_eval_executor, make_executor

needs_onednn = pytest.mark.skipif(not onednn.is_available("cpu"), reason="needs JAX 0.12 on an x86-64 CPU")


@pytest.fixture
def _available(monkeypatch, _no_program_is_kept):
    monkeypatch.setattr(jax, "__version_info__", (0, 12, 0))
    monkeypatch.setattr(machine, "machine", lambda: "x86_64")


@pytest.mark.usefixtures("_available")
def test_it_is_there_on_x86_cpus_with_a_new_jax(monkeypatch):
    assert [onednn.is_available(platform) for platform in ("cpu", "gpu", "tpu")] == [True, False, False]
    monkeypatch.setattr(machine, "machine", lambda: "aarch64")
    assert not onednn.is_available("cpu")
    monkeypatch.setattr(machine, "machine", lambda: "x86_64")
    monkeypatch.setattr(jax, "__version_info__", (0, 11, 2))
    assert not onednn.is_available("cpu")


@pytest.mark.usefixtures("_available")
def test_auto_is_onednn_where_it_was_measured():
    assert onednn.resolve("auto", "cpu") == "onednn"
    assert onednn.resolve("auto", "cpu", "bfloat16") == "auto"
    assert onednn.resolve("auto", "tpu") == "auto"
    assert {onednn.resolve(wanted, "cpu") for wanted in ("xla", "native", "taps")} == {"xla", "native", "taps"}
    assert onednn.resolve("onednn", "tpu") == "onednn"  # where all are XLA's own


@pytest.mark.usefixtures("_available")
def test_it_is_not_where_programs_are_kept(tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    assert onednn.resolve("auto", "cpu") == "auto"
    assert onednn.resolve("onednn", "cpu") == "onednn"


def test_where_it_is_not_it_cannot_be_asked_for(monkeypatch):
    monkeypatch.setattr(machine, "machine", lambda: "aarch64")
    with pytest.raises(ConfigError, match=r"onednn needs JAX 0\.12 or newer on an x86-64 CPU.*choose auto"):
        onednn.resolve("onednn", "cpu")
    assert onednn.resolve("auto", "cpu") == "auto"
    assert onednn.compiler_options("onednn", "cpu") == {}


@pytest.mark.usefixtures("_available")
def test_only_programs_that_are_written_for_it_are_compiled_to_it():
    assert onednn.compiler_options("onednn", "cpu")["xla_cpu_use_onednn"] is True
    assert onednn.compiler_options("onednn", "tpu") == {}
    assert all(onednn.compiler_options(other, "cpu") == {} for other in ("auto", "xla", "native", "winograd"))


@pytest.mark.usefixtures("_available")
@pytest.mark.parametrize("make", [make_executor, make_eval_executor])
@pytest.mark.parametrize(
    ("fields", "lowering"),
    [
        ([], "onednn"),
        (["ops.conv=xla"], "xla"),
        (["ops.conv=shifts"], "shifts"),
        (["train.precision=bfloat16"], "auto"),
        (["parallel.executor=pmap"], "auto"),
    ],
)
def test_a_run_is_written_as_it_is_compiled(make, fields, lowering):
    assert make(load_config(None, fields)).lowering == lowering


def test_pmap_takes_no_options_for_the_compiler():
    with pytest.raises(ConfigError, match=r"ops\.conv: onednn needs parallel\.executor=jit"):
        load_config(None, ["ops.conv=onednn", "parallel.executor=pmap"])


@pytest.mark.usefixtures("_available")
def test_a_network_says_how_it_is_to_be_compiled():
    network = create_model("resnet18")
    here, options = network.on("cpu")
    assert here == network.clone(lowering="onednn")
    assert options == onednn.compiler_options("onednn", "cpu") != {}
    assert network.on("tpu") == (network, {})


@needs_onednn
@pytest.mark.parametrize("case", CASES)
def test_the_choice_computes_what_xlas_own_does(case):
    """Outputs, and both gradients."""
    images, kernel, convolution = operands(case)
    found, expected = (
        jax.jit(
            functools.partial(gradients, functools.partial(convolution, lowering=lowering)),
            compiler_options=onednn.compiler_options(lowering, "cpu"),
        )(images, kernel)
        for lowering in ("onednn", "native")
    )
    close(found, expected)


@needs_onednn
@pytest.mark.parametrize(
    ("case", "form", "which"),
    [(case, form, which) for case, form in cases_and_forms() for which in FORMS if form in FORMS[which]],
)
def test_so_does_every_form(case, form, which):
    """Any of them may become the fastest."""
    images, kernel, convolution = operands(case)
    outputs, back = jax.vjp(functools.partial(convolution, lowering="native"), images, kernel)
    by_input, by_kernel = back(outputs)
    one, other, expected = {
        "forward": (images, kernel, outputs),
        "by_input": (outputs, kernel, by_input),
        "by_kernel": (images, outputs, by_kernel),
    }[which]
    run = jax.jit(
        functools.partial(FORMS[which][form], geometry=geometry_of(case)),
        compiler_options=onednn.compiler_options("onednn", "cpu"),
    )
    close(run(one, other), expected)


@needs_onednn
def test_the_program_holds_its_routines():
    images, kernel, convolution = operands("dense")
    run = jax.jit(
        functools.partial(convolution, lowering="onednn"),
        compiler_options=onednn.compiler_options("onednn", "cpu"),
    )
    assert "__onednn$" in run.lower(images, kernel).compile().as_text()
