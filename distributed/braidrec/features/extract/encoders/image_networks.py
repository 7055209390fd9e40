"""Image networks by name, where they are cut, and what their weights were made for."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from braidrec.config.base import ConfigError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CAFFE_MEAN = (122.7717 / 255, 115.9465 / 255, 102.9801 / 255)
"""Of ImageNet in RGB, as Caffe's reference models subtract it."""


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """Pre-processing: shorter side → `resize`, square of `crop` from the middle, (x − mean) / std of values in 0…1."""

    resize: int
    crop: int
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    interpolation: str = "bilinear"


class CaffeReference(nn.Module):
    """CaffeNet, the AlexNet variant (Krizhevsky et al., 2012; Jia et al., 2014) behind the Amazon data's 4,096-d
    features: pooling before normalisation, two convolutions in groups. Takes RGB in 0…255 less the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 96, 11, stride=4)
        self.conv2 = nn.Conv2d(96, 256, 5, padding=2, groups=2)
        self.conv3 = nn.Conv2d(256, 384, 3, padding=1)
        self.conv4 = nn.Conv2d(384, 384, 3, padding=1, groups=2)
        self.conv5 = nn.Conv2d(384, 256, 3, padding=1, groups=2)
        self.pool = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.norm = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75)
        self.fc6 = nn.Linear(256 * 6 * 6, 4096)
        self.relu6 = nn.ReLU()
        self.fc7 = nn.Linear(4096, 4096)
        self.relu7 = nn.ReLU()
        self.fc8 = nn.Linear(4096, 1000)

    def forward(self, pixels: Tensor) -> Tensor:
        maps = self.norm(self.pool(self.conv1(pixels.flip(1)).relu()))  # Caffe's channels are blue, green, red
        maps = self.norm(self.pool(self.conv2(maps).relu()))
        maps = self.conv4(self.conv3(maps).relu()).relu()
        maps = self.pool(self.conv5(maps).relu())
        hidden = self.relu7(self.fc7(self.relu6(self.fc6(maps.flatten(1)))))
        scores: Tensor = self.fc8(hidden)
        return scores


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 (Tan and Le, ICML 2019, for edge devices) up to the mean of its last maps."""

    def __init__(self) -> None:
        super().__init__()
        from efficientnet_lite_pytorch import EfficientNet

        self.network = EfficientNet.from_name("efficientnet-lite0")

    def forward(self, pixels: Tensor) -> Tensor:
        maps: Tensor = self.network.extract_features(pixels)
        return maps.mean((2, 3))

    def load_state_dict(self, state: Any, strict: bool = True, assign: bool = False) -> Any:
        return self.network.load_state_dict(state, strict=strict, assign=assign)


EXTRA: dict[str, Callable[[], nn.Module]] = {
    "caffe_reference": CaffeReference,
    "efficientnet_lite0": EfficientNetLite0,
}
"""Networks that torchvision does not have."""
EXTRA_PIXELS = {
    "caffe_reference": Pixels(resize=227, crop=227, mean=CAFFE_MEAN, std=(1 / 255, 1 / 255, 1 / 255)),
    "efficientnet_lite0": Pixels(
        resize=224, crop=224, mean=(127 / 255,) * 3, std=(128 / 255,) * 3, interpolation="bicubic"
    ),
}

LAYERS: dict[str, dict[str, str]] = {
    "caffe_reference": {"fc6": "relu6", "fc7": "relu7", "logits": "fc8", "": "relu7"},
    "alexnet": {"fc6": "classifier.2", "fc7": "classifier.5", "logits": "classifier.6", "": "classifier.5"},
    "vgg": {"fc6": "classifier.1", "fc7": "classifier.4", "logits": "classifier.6", "": "classifier.4"},
    "vit": {"cls": "getitem_5", "logits": "heads.head", "": "getitem_5"},
    "resnet": {"avgpool": "flatten", "logits": "fc", "": "flatten"},
    "resnext": {"avgpool": "flatten", "logits": "fc", "": "flatten"},
    "wide_resnet": {"avgpool": "flatten", "logits": "fc", "": "flatten"},
    "inception": {"avgpool": "flatten", "logits": "fc", "": "flatten"},
    "efficientnet": {"avgpool": "flatten", "logits": "classifier.1", "": "flatten"},
}
"""By the beginning of a network's name: the usual names of layers → nodes after the activation; "" is the default."""


def build_network(model: str, side: int) -> nn.Module:
    """A network with whatever values torch draws.

    Args:
        side: pixels of a side of its images, which decides how many places a vision transformer knows.
    Raises:
        ConfigError: no network of this name.
    """
    if model in EXTRA:
        return EXTRA[model]()
    _check_name(model)
    options: dict[str, Any] = {"init_weights": True} if model in ("inception_v3", "googlenet") else {}
    if model.startswith("vit_"):
        options["image_size"] = side
    network: nn.Module = torchvision.models.get_model(model, weights=None, **options)
    return network


def pixels_of(model: str, published: str | None = None) -> Pixels:
    """What weights of torchvision were made for.

    Args:
        published: name of the weights; None: the network's newest.
    Raises:
        ConfigError: no network of this name.
    """
    if model in EXTRA_PIXELS:
        return EXTRA_PIXELS[model]
    _check_name(model)
    models = torchvision.models
    weights = models.get_model_weights(model).DEFAULT if published is None else models.get_weight(published)
    transforms = weights.transforms()
    return Pixels(
        resize=int(transforms.resize_size[0]), crop=int(transforms.crop_size[0]), mean=tuple(transforms.mean),
        std=tuple(transforms.std), interpolation=transforms.interpolation.value,
    )  # fmt: skip


def _check_name(model: str) -> None:
    known = torchvision.models.list_models(module=torchvision.models)
    if model not in known:
        near = [name for name in known if name[:3] == model[:3]]
        raise ConfigError(f"encoder.model={model}: torchvision has no such classifier; near it: {near or 'none'}")


def with_published_input(network: nn.Module) -> nn.Module:
    """Inception-v3 and GoogLeNet as their published weights want them: they were trained on values from −1 to 1, and
    the networks themselves bring ImageNet's mean and deviation to that, if they are told to."""
    if hasattr(network, "transform_input"):
        setattr(network, "transform_input", True)  # noqa: B010 - a plain attribute, which nn.Module declares otherwise
    return network


def cut(network: nn.Module, model: str, layer: str | None) -> nn.Module:
    """The network up to a layer, whose output it gives.

    Raises:
        ConfigError: no such layer.
    """
    if isinstance(network, EfficientNetLite0):
        if layer not in (None, "avgpool"):
            raise ConfigError(f"encoder.layer={layer}: efficientnet_lite0 has avgpool only")
        return network
    network.eval()
    nodes = get_graph_node_names(network)[1]
    names = next((own for prefix, own in LAYERS.items() if model.startswith(prefix)), {})
    node = names.get(layer or "", layer or _before_classifier(nodes))
    if not any(name == node or name.startswith(f"{node}.") for name in nodes):
        raise ConfigError(
            f"encoder.layer={layer}: {model} has no such layer; it has {[name for name in names if name]} and "
            f"the nodes {nodes[-12:]}, …"
        )
    return _First(create_feature_extractor(network, [node]), node)


def _before_classifier(nodes: list[str]) -> str:
    """The last node that is not part of the classifier, or of what flattens for it."""
    heads = ("classifier", "fc", "head", "heads", "getitem", "dropout")
    return next(node for node in reversed(nodes) if not node.startswith(heads))


class _First(nn.Module):
    def __init__(self, extractor: nn.Module, node: str) -> None:
        super().__init__()
        self.extractor = extractor
        self.node = node

    def forward(self, pixels: Tensor) -> Tensor:
        found: Tensor = self.extractor(pixels)[self.node]
        return found


def averaged(maps: Tensor) -> Tensor:
    """`[n, channels, height, width]` or `[n, tokens, channels]` → the mean over places; `[n, dim]` as it is."""
    if maps.dim() == 4:
        return maps.mean((2, 3))
    return maps.mean(1) if maps.dim() == 3 else maps


def fixed_values(network: nn.Module, seed: int) -> None:
    """Matrices and kernels drawn anew, so that the variance survives every layer. What has one dimension stays as the
    network was built with it: build it where torch's chance is seeded."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() > 1:
                scale = (2.0 / parameter[0].numel()) ** 0.5
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
