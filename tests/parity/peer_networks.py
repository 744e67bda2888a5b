"""Other libraries' networks with random weights and running statistics, behind one face.

Images are (batch, height, width, channels) float32 here as in ours; so are the maps that come back.
"""

import functools
import os
import re

os.environ.setdefault("KERAS_BACKEND", "torch")

import numpy as np
import torch
from torch import nn

# What a library's constructor needs beyond the name, so that the network is that of the reference.
TORCHVISION = {
    "googlenet": {"aux_logits": False, "transform_input": False, "init_weights": True},
    "googlenet+aux": {"aux_logits": True, "transform_input": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "transform_input": False, "init_weights": True},
    "inception_v3+aux": {"aux_logits": True, "transform_input": False, "init_weights": True},
}

# EfficientNet's blocks with a shortcut: their class, what says that there is one, and their last normalisation.
RESIDUALS = {"MBConv": ("use_res_connect", "block.-1.1"), "InvertedResidual": ("has_skip", "bn3")}


class TorchPeer:
    """A network of torchvision, timm, pytorchcv or efficientnet-lite-pytorch."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def randomise(self, seed: int, images: np.ndarray) -> None:
        """New weights; running statistics near, but not at, those of `images`, so that no map grows beyond measure."""
        generator = torch.Generator().manual_seed(seed)
        normal = lambda like: torch.randn(like.shape, generator=generator)  # noqa: E731
        norms, gates = [], []
        for module in self.module.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                norms.append((module, module.momentum))
                module.momentum = 1.0
                if module.affine:
                    module.weight.data = 1 + 0.2 * normal(module.weight)
                    module.bias.data = 0.2 * normal(module.bias)
            elif isinstance(module, nn.Conv2d | nn.Linear):
                fan_in = module.weight[0].numel()
                module.weight.data = normal(module.weight) * (2 / fan_in) ** 0.5
                if module.bias is not None:
                    module.bias.data = 0.2 * normal(module.bias)
            elif type(module).__name__ in ("SEModule", "SqueezeExcite", "SqueezeExcitation"):
                gates.append(module)
        # A steep gate makes a deep network chaotic: rounding would grow from block to block, beyond any tolerance.
        for gate in gates:
            for layer in gate.modules():
                if isinstance(layer, nn.Conv2d):
                    layer.weight.data *= 0.25
        # So do dozens of residual branches that are as large as their shortcuts.
        for block in self.module.modules():
            has_shortcut, last = RESIDUALS.get(type(block).__name__, ("", ""))
            if has_shortcut and getattr(block, has_shortcut):
                functools.reduce(_child, last.split("."), block).weight.data *= 0.2
        if norms:
            with torch.no_grad():
                self.module.train()(_to_torch(images))
        for norm, momentum in norms:
            norm.momentum = momentum
            norm.running_mean += 0.2 * normal(norm.running_mean) * norm.running_var.sqrt()
            norm.running_var *= 0.75 + 0.5 * torch.rand(norm.running_var.shape, generator=generator)
        self.module.eval()

    def arrays(self) -> dict[str, np.ndarray]:
        """Parameters and running statistics by name."""
        return {name: tensor.detach().numpy().copy() for name, tensor in self.module.state_dict().items()}

    def load(self, arrays: dict[str, np.ndarray]) -> None:
        """Sets all of them; a name too many or too few raises."""
        self.module.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in arrays.items()})

    def __call__(self, images: np.ndarray, features: dict[str, str]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Logits, and for each of `features` the output of the module of that name, in evaluation."""
        found: dict[str, np.ndarray] = {}
        modules = dict(self.module.named_modules())

        def keep(stage: str):
            def hook(module, inputs, output) -> None:
                found[stage] = output.detach().numpy().transpose(0, 2, 3, 1).copy()

            return hook

        hooks = [modules[name].register_forward_hook(keep(stage)) for stage, name in features.items()]
        with torch.no_grad():
            logits = self.module.eval()(_to_torch(images)).numpy()
        for hook in hooks:
            hook.remove()
        return logits, found

    def in_float64(self) -> "TorchPeer":
        """Itself, computing in float64 from now on."""
        self.module.double()
        return self

    def train_once(self, images: np.ndarray, labels: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Gradients of the mean cross-entropy in training mode without dropout, by name, and that by the images.

        In float64: in float32, rounding flips the sign of values next to ReLU's corner, and deep networks amplify it.

        The running statistics move by this step; their variances are made the biased ones that JAX and Keras keep.
        """
        before: dict[nn.Module, torch.Tensor] = {}
        counts: dict[nn.Module, float] = {}

        def count(module, inputs, output) -> None:
            counts[module] = inputs[0].numel() / inputs[0].shape[1]

        hooks = []
        for module in self.module.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                before[module] = module.running_var.clone()
                hooks.append(module.register_forward_hook(count))
        self.module.double()
        x = _to_torch(images.astype(np.float64)).requires_grad_()
        self.module.zero_grad()
        loss = nn.functional.cross_entropy(self.module.train()(x), torch.from_numpy(labels))
        loss.backward()
        self.module.eval()
        for hook in hooks:
            hook.remove()
        for module, values in counts.items():
            kept = (1 - module.momentum) * before[module]
            module.running_var.copy_(kept + (module.running_var - kept) * (values - 1) / values)
        gradients = {name: parameter.grad.numpy().copy() for name, parameter in self.module.named_parameters()}
        return gradients, x.grad.numpy().transpose(0, 2, 3, 1)


class KerasPeer:
    """A network of keras.applications."""

    def __init__(self, model) -> None:
        self.model = model
        # Some networks rescale the images themselves (an untrained Normalization changes nothing): undone beforehand.
        rescalings = [layer.scale for layer in model.layers if type(layer).__name__ == "Rescaling"]
        self.image_scale = float(np.prod(rescalings))

    def randomise(self, seed: int, images: np.ndarray) -> None:
        """As `TorchPeer.randomise`."""
        random = np.random.default_rng(seed)
        norms = []
        for layer in self.model.layers:
            kind = type(layer).__name__
            if kind == "BatchNormalization":
                norms.append((layer, layer.momentum))
                layer.momentum = 0.0
                if layer.scale:
                    # As in RESIDUALS; a stage's block a has no shortcut.
                    size = 0.2 if re.fullmatch(r"block\d[b-z]_project_bn", layer.name) else 1.0
                    layer.gamma.assign(size * (1 + 0.2 * random.normal(size=layer.gamma.shape)))
                layer.beta.assign(0.2 * random.normal(size=layer.beta.shape))
            elif kind == "Normalization":
                continue
            else:
                for weight in layer.weights:
                    spread = 0.2 if len(weight.shape) == 1 else (2 / _fan_in(weight)) ** 0.5
                    gate = 0.25 if layer.name.endswith(("se_reduce", "se_expand")) and len(weight.shape) > 1 else 1.0
                    weight.assign(gate * spread * random.normal(size=weight.shape))
        if norms:
            self.model(images / self.image_scale, training=True)
        for layer, momentum in norms:
            layer.momentum = momentum
            mean, var = (np.asarray(v.detach()) for v in (layer.moving_mean.value, layer.moving_variance.value))
            layer.moving_mean.assign(mean + 0.2 * random.normal(size=mean.shape) * np.sqrt(var))
            layer.moving_variance.assign(var * random.uniform(0.75, 1.25, size=var.shape))

    def layer_names(self) -> dict[str, str]:
        """Names that Keras numbers as they come in a process, and what they are if numbered within the model."""
        counts: dict[str, int] = {}
        names: dict[str, str] = {}
        for layer in self.model.layers:
            if numbered := re.fullmatch(r"(conv2d|batch_normalization|separable_conv2d|dense)(_\d+)?", layer.name):
                kind = numbered[1]
                names[layer.name] = f"{kind}_{counts.get(kind, 0)}"
                counts[kind] = counts.get(kind, 0) + 1
        return names

    def _variables(self) -> dict:
        """Weights by path."""
        names, found = self.layer_names(), {}
        for layer in self.model.layers:
            if type(layer).__name__ == "Normalization":
                continue
            for weight in layer.weights:
                found[f"{names.get(layer.name, layer.name)}/{weight.path.rpartition('/')[2]}"] = weight
        return found

    def arrays(self) -> dict[str, np.ndarray]:
        """Parameters and running statistics by name."""
        return {name: np.asarray(weight.value.detach()).copy() for name, weight in self._variables().items()}

    def load(self, arrays: dict[str, np.ndarray]) -> None:
        """Sets all of them; a name too many or too few raises."""
        variables = self._variables()
        assert set(variables) == set(arrays)
        for name, weight in variables.items():
            weight.assign(arrays[name])

    def __call__(self, images: np.ndarray, features: dict[str, str]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Logits, and for each of `features` the output of the layer of that name, in evaluation."""
        import keras

        outputs = [self.model.get_layer(name).output for name in features.values()]
        with torch.no_grad():
            logits, *maps = keras.Model(self.model.input, [self.model.output, *outputs])(
                images / self.image_scale, training=False
            )
        return np.asarray(logits), {stage: np.asarray(found) for stage, found in zip(features, maps, strict=True)}


def build_peer(name: str, input_shape: tuple[int, int, int] | None = None) -> TorchPeer | KerasPeer:
    """The network that the reference calls `LIBRARY/NAME`, in evaluation mode."""
    library, _, model = name.partition("/")
    if library == "torchvision":
        import torchvision

        if model.startswith("DenseNet"):
            return TorchPeer(torchvision.models.DenseNet(32, (6, 12, 64, 48), 64).eval())
        constructor = getattr(torchvision.models, model.partition("+")[0])
        return TorchPeer(constructor(weights=None, **TORCHVISION.get(model, {})).eval())
    if library == "timm":
        import timm

        return TorchPeer(timm.create_model(model, pretrained=False).eval())
    if library == "pytorchcv":
        from pytorchcv.model_provider import get_model

        return TorchPeer(get_model(model).eval())
    if library == "efficientnet-lite-pytorch":
        from efficientnet_lite_pytorch import EfficientNet

        return TorchPeer(EfficientNet.from_name(model).eval())
    import keras

    keras.utils.clear_session()
    model, _, variant = model.partition("+")
    options = {}
    if variant:
        alpha, resolution = re.fullmatch(r"alpha([\d.]+)_r(\d+)", variant).groups()
        options = {"alpha": float(alpha)}
        input_shape = (int(resolution), int(resolution), 3)
    application = getattr(keras.applications, model)
    return KerasPeer(application(weights=None, classifier_activation=None, input_shape=input_shape, **options))


def _child(module: nn.Module, name: str) -> nn.Module:
    return list(module)[int(name)] if isinstance(module, nn.Sequential) else getattr(module, name)


def _fan_in(weight) -> int:
    # A depthwise kernel's outputs see one channel each.
    return int(np.prod(weight.shape[:2] if "depthwise" in weight.path else weight.shape[:-1]))


def _to_torch(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
