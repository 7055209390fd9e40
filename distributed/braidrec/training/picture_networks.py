"""The configured network from pixels to numbers, and how pixels are scaled for it."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from braidrec.config.load import ConfigError
from braidrec.config.systems.dvbpr import DVBPRConfig, PaperNetworkConfig, TorchvisionNetworkConfig
from braidrec.models.picture_network import PictureNetwork

HALF = (0.5, 0.5, 0.5)
"""(x − 127.5) / 127.5, of values from 0 to 1."""
AUXILIARY = ("AuxLogits.", "aux1.", "aux2.")
"""Further classifiers of Inception and GoogLeNet, which published weights have and nobody needs."""
KEY = "model.encoder.network"


@dataclass(frozen=True, kw_only=True)
class ScaledNetwork:
    """A network, and mean and standard deviation of the pixels that it wants, of values from 0 to 1."""

    network: nn.Module
    mean: tuple[float, float, float] = HALF
    std: tuple[float, float, float] = HALF


def build_picture_network(config: DVBPRConfig, dim: int, *, pretrained: bool) -> ScaledNetwork:
    """The network with `dim` outputs.

    Args:
        pretrained: with the configured weights; else they will come from a checkpoint.
    Raises:
        ConfigError: no such network, one that does not fit the side of the images, or weights that are not its own.
    """
    wanted = config.network
    if isinstance(wanted, PaperNetworkConfig):
        own = wanted.model_dump(exclude={"kind"})
        return ScaledNetwork(network=PictureNetwork(out_dim=dim, side=config.side, **own))
    return _torchvision(wanted, config.side, dim, pretrained=pretrained)


def _torchvision(wanted: TorchvisionNetworkConfig, side: int, dim: int, *, pretrained: bool) -> ScaledNetwork:
    import torchvision

    models = torchvision.models
    known = models.list_models(module=models)
    if wanted.model not in known:
        near = [name for name in known if name[:3] == wanted.model[:3]]
        raise ConfigError(
            f"{KEY}.model={wanted.model}: torchvision has no such classifier; near it: {near or known[:8]}"
        )
    options: dict[str, Any] = {"weights": None, "num_classes": dim}
    if wanted.model in ("inception_v3", "googlenet"):
        options |= {"aux_logits": False, "init_weights": True}
    if wanted.model.startswith("vit_"):
        options["image_size"] = side
    try:
        network: nn.Module = models.get_model(wanted.model, **options)
    except (ValueError, AssertionError) as error:  # torchvision asserts that patches fit into the side
        raise ConfigError(f"{KEY}.model={wanted.model} with images of side={side}: {error}") from None
    published = models.get_model_weights(wanted.model).DEFAULT.transforms()
    if pretrained and wanted.weights is not None:
        _start_from(network, wanted, dim)
    return ScaledNetwork(network=network, mean=tuple(published.mean), std=tuple(published.std))


def _start_from(network: nn.Module, wanted: TorchvisionNetworkConfig, dim: int) -> None:
    """Put the weights in, but for those of the last layer, which has as many outputs as `dim` says."""
    assert wanted.weights is not None
    given = {name: value for name, value in _read(wanted.weights).items() if not name.startswith(AUXILIARY)}
    own = network.state_dict()
    last = _last_layer(own, dim)
    unlike = {name for name in own.keys() & given.keys() if own[name].shape != given[name].shape}
    differ = sorted(((own.keys() ^ given.keys()) | unlike) - last)
    if differ:
        raise ConfigError(
            f"{KEY}.weights={wanted.weights}: they do not fit {wanted.model}: {len(differ)} tensors differ, such as "
            f"{differ[0]}; give those of this network"
        )
    kept = {name: value for name, value in given.items() if name not in last}
    network.load_state_dict({**{name: own[name] for name in last}, **kept})


def _last_layer(own: dict[str, Tensor], dim: int) -> set[str]:
    """Names of the weight and bias that come last among those with `dim` outputs."""
    weight = [name for name, value in own.items() if value.dim() > 1 and len(value) == dim][-1]
    return {name for name in (weight, weight.removesuffix("weight") + "bias") if name in own}


def _read(name: str) -> dict[str, Tensor]:
    from braidrec.features.extract.weights import state_dict, torchvision_weights, weights_file

    published = name.removeprefix("torchvision:")
    try:
        found = weights_file(name) if published == name else torchvision_weights(published)
        return state_dict(found.path)
    except ConfigError as error:
        raise ConfigError(str(error).replace("encoder.weights", f"{KEY}.weights")) from None
