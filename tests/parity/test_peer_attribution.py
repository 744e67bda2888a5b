"""Attributions equal Captum's, of the same networks with the same random weights."""

import functools
import os

import jax
import numpy as np
import pytest

from cnnjax.analysis.attribution import class_score, grad_cam, integrated_gradients
from cnnjax.models import create_model, get_variant
from cnnjax.weights.convert import from_peer, name_map, shapes_of

pytest.importorskip("torch", reason="needs the extra `parity`")
pytest.importorskip("captum", reason="needs the extra `parity`")
import torch
from captum.attr import IntegratedGradients, LayerGradCam, Saliency
from measure import float64, relative
from peer_networks import build_peer

pytestmark = pytest.mark.parity

# Height and width of the images. With CNNJAX_PARITY=all a VGG too, whose dense layers take float64 long.
MEMBERS = {"torchvision/resnet18": 64, "timm/mobilenetv1_100": 64}
if os.environ.get("CNNJAX_PARITY") == "all":
    MEMBERS["torchvision/vgg11_bn"] = 64
CLASS, STEPS = 7, 16

# In float64, where rounding flips no value next to ReLU's corner.
EXACT = 1e-9
# Captum rounds the weights of its steps to float32.
ROUNDED = 1e-6


class Pair:
    """A network of another library and ours with its weights, one image, and the attributions of one class of both."""

    def __init__(self, name: str) -> None:
        self.name = name
        shape = (MEMBERS[name], MEMBERS[name], get_variant(name).input_shape[-1])
        random = np.random.default_rng(11)
        self.peer = build_peer(name)
        self.peer.randomise(13, random.normal(size=(4, *shape)).astype(np.float32))
        self.network = create_model(name, dtype=np.float64)
        variables, report = from_peer(name, self.peer.arrays(), shapes_of(self.network, shape))
        report.refuse(name)
        self.variables = jax.tree.map(lambda leaf: leaf.astype(np.float64), variables)
        self.image, self.baseline = random.normal(size=(2, *shape))
        self.module = self.peer.in_float64().module.eval()

    def theirs(self, image: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(image.transpose(2, 0, 1)[None].copy())

    def ours(self, tensor: torch.Tensor) -> np.ndarray:
        return tensor.detach().numpy()[0].transpose(1, 2, 0)


@pytest.fixture(scope="module", params=MEMBERS)
def pair(request) -> Pair:
    with float64():
        return Pair(request.param)


def test_saliency_and_integrated_gradients(pair):
    with float64():
        by_image = jax.jit(lambda variables, x: jax.grad(class_score(pair.network, variables, CLASS))(x))
        gradient = functools.partial(by_image, pair.variables)  # constants of a program take it minutes to compile
        image, baseline = (pair.theirs(each).requires_grad_() for each in (pair.image, pair.baseline))
        saliency = Saliency(pair.module).attribute(image, target=CLASS, abs=False)
        assert relative(gradient(pair.image), pair.ours(saliency)) < EXACT
        expected = IntegratedGradients(pair.module).attribute(
            image, baseline, target=CLASS, n_steps=STEPS, method="gausslegendre"
        )
        found = integrated_gradients(gradient, pair.image, pair.baseline, steps=STEPS)
        assert relative(found, pair.ours(expected)) < ROUNDED


def test_grad_cam_of_every_stage(pair):
    with float64():
        modules = dict(pair.module.named_modules())
        stages = {stage: theirs for stage, theirs in name_map(pair.name).features.items() if stage.startswith("stage")}
        assert len(stages) > 3
        for stage, theirs in stages.items():
            expected = LayerGradCam(pair.module, modules[theirs]).attribute(
                pair.theirs(pair.image), target=CLASS, relu_attributions=True
            )
            assert expected.max() > 0
            found = grad_cam(pair.network, pair.variables, pair.image, CLASS, stage)
            assert relative(found, pair.ours(expected)[..., 0]) < EXACT, stage
