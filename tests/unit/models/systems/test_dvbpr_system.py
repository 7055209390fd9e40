"""DVBPR against numpy: scores, loss and its terms, the paper's network, what is drawn of a picture."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from braidrec.graph.hop import Neighbourhood
from braidrec.models.contract import Batch, Inputs, StepContext
from braidrec.models.picture_network import PictureNetwork
from braidrec.models.pictures import ItemPictures, scaled
from braidrec.models.systems.dvbpr import DVBPR, Share
from braidrec.objectives.bpr import BPR
from braidrec.objectives.gather import own_rows

USERS, ITEMS, DIM, SIDE = 5, 7, 3, 12
PLACE = np.array([3, 0, -1, 1, 2, -1, 4], np.int32)
"""Items 2 and 5 have no picture."""


def pixels(side: int = SIDE) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (5, side, side, 3)).astype(np.uint8)


def small_network() -> PictureNetwork:
    torch.manual_seed(0)
    return PictureNetwork(
        out_dim=DIM, side=SIDE, channels=(2, 3, 3, 2, 2), kernel=3, stride=2, hidden=(4, 5), dropout=0.0
    )


def made(**more: object) -> DVBPR:
    arguments = {"network": small_network(), "pictures": ItemPictures(pixels(), PLACE, side=SIDE), **more}
    return DVBPR(dim=DIM, initial_std=0.5, **arguments)


def inputs_of(table: torch.Tensor, seeds: torch.Tensor | None) -> Inputs:
    own = Neighbourhood(hops=(), input_nodes=seeds, seeds=seeds, seeds_first=True)
    return Inputs(
        seeds=seeds, num_users=USERS, num_items=ITEMS, neighbourhoods={"own": own},
        table=lambda name, nodes: table if nodes is None else table[nodes],
    )  # fmt: skip


def convolved(x: NDArray[np.float64], layer: nn.Conv2d, step: int) -> NDArray[np.float64]:
    """One picture `[c, n, n]`, zeros around it as TensorFlow's SAME has them, pixel by pixel."""
    weight, bias = layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy()
    side, kernel = x.shape[1], weight.shape[2]
    after = -(-side // step)
    around = max((after - 1) * step + kernel - side, 0)
    padded = np.zeros((x.shape[0], side + around, side + around))
    padded[:, around // 2 : around // 2 + side, around // 2 : around // 2 + side] = x
    out = np.zeros((len(weight), after, after))
    for row in range(after):
        for column in range(after):
            window = padded[:, row * step : row * step + kernel, column * step : column * step + kernel]
            out[:, row, column] = (weight * window).sum((1, 2, 3)) + bias
    return np.maximum(out, 0)


def pooled(x: NDArray[np.float64]) -> NDArray[np.float64]:
    half = -(-x.shape[1] // 2)
    return np.array(
        [[[x[c, 2 * r : 2 * r + 2, k * 2 : k * 2 + 2].max() for k in range(half)] for r in range(half)]
         for c in range(len(x))]
    )  # fmt: skip


def by_hand(network: PictureNetwork, picture: NDArray[np.uint8]) -> NDArray[np.float64]:
    x = (picture.astype(np.float64) - 127.5) / 127.5
    x = x.transpose(2, 0, 1)
    convolutions = [layer for layer in network.convolutions if isinstance(layer, nn.Conv2d)]
    for number, (layer, step) in enumerate(zip(convolutions, (2, 1, 1, 1, 1), strict=True)):
        x = convolved(x, layer, step)
        if number in (0, 1, 4):
            x = pooled(x)
    h = x.reshape(-1)
    linear = [layer for layer in network.connected if isinstance(layer, nn.Linear)]
    for number, layer in enumerate(linear):
        h = layer.weight.detach().double().numpy() @ h + layer.bias.detach().double().numpy()
        h = np.maximum(h, 0) if number < 2 else h
    return h


def item_vectors(model: DVBPR) -> NDArray[np.float64]:
    """What every item should be."""
    assert isinstance(model.network, PictureNetwork)
    token = model.missing.token.detach().double().numpy()
    stored = pixels()
    return np.array([token if place < 0 else by_hand(model.network, stored[place]) for place in PLACE])


@pytest.mark.parametrize("training", [False, True])
def test_scores_are_inner_products_with_what_the_network_sees(training: bool) -> None:
    model, table = made(tile=2).train(training), torch.rand(USERS, DIM)
    with torch.no_grad():
        vectors = model.encode(inputs_of(table, None)).vectors.double().numpy()
    wanted = item_vectors(model)
    assert np.ptp(wanted[PLACE >= 0], axis=0).min() > 1e-3, "pictures that all look alike prove nothing"
    np.testing.assert_allclose(vectors[USERS:], wanted, atol=1e-5)
    np.testing.assert_allclose(vectors[:USERS] @ vectors[USERS:].T, table.double().numpy() @ wanted.T, atol=1e-5)


def test_loss_terms_and_gradients() -> None:
    """BPR of three triplets, the regulariser's rows, the network's decay; each picture of the batch goes in once."""
    model, table = made(network_decay=0.25), torch.rand(USERS, DIM, requires_grad=True)
    users, items, others = torch.tensor([0, 3, 0]), torch.tensor([0, 2, 4]), torch.tensor([[4], [6], [1]])
    real = torch.tensor([1.0, 1.0, 0.0])
    batch = Batch(users=users, items=items, negatives=others, real=real, weight=real)
    seeds, places = torch.unique(batch.nodes(USERS), return_inverse=True)
    inputs = inputs_of(table, seeds)
    seen: list[int] = []
    model.network.register_forward_hook(lambda module, given, out: seen.append(len(given[0])))
    encoded = model.encode(inputs)
    assert seen == [4], "items 0, 1, 4 and 6 have pictures, item 2 has none"
    theta, phi = table.detach().double().numpy(), item_vectors(model)
    of_users, of_items, of_others = batch.split(encoded.vectors[places])
    rows = BPR().rows(of_users, of_items, of_others, batch).detach().numpy()
    wanted = [np.log1p(np.exp(-theta[u] @ (phi[i] - phi[j]))) for u, i, j in ((0, 0, 4), (3, 2, 6), (0, 4, 1))]
    np.testing.assert_allclose(rows, wanted, atol=1e-5)
    ego = encoded.ego.detach()
    np.testing.assert_array_equal(ego[2:], torch.zeros(len(seeds) - 2, DIM))
    np.testing.assert_array_equal(ego[:2], table.detach()[[0, 3]])

    step = StepContext(batch=batch, places=places, seed_weight=torch.ones(len(seeds)), gather=own_rows, epoch=1)
    (term,) = model.terms(encoded, inputs, step).values()
    weights = [layer for name, layer in model.network.named_parameters() if name.endswith("weight")]
    half_norm = sum(float((weight.detach().double() ** 2).sum()) for weight in weights) / 2
    assert (term.coefficient, float(term.weight)) == (0.25, 2.0)
    assert float(term.total / term.weight) == pytest.approx(half_norm, rel=1e-6)

    (of_users * (of_items - of_others[:, 0])).sum().backward()
    assert table.grad is not None and table.grad[[0, 3]].abs().min() > 0 and not table.grad[[1, 2, 4]].any()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_batch_without_any_picture_trains_the_common_vector() -> None:
    model, table = made(), torch.rand(USERS, DIM)
    encoded = model.encode(inputs_of(table, torch.tensor([1, USERS + 2, USERS + 5])))
    torch.testing.assert_close(encoded.vectors[1:], model.missing.token.expand(2, DIM))
    encoded.vectors.sum().backward()
    assert all(parameter.grad is None for parameter in model.network.parameters())
    np.testing.assert_allclose(model.missing.token.grad, 2.0)


def test_ranks_share_what_is_to_be_seen() -> None:
    """Three ranks: each asks its network for its part alone, and one part after the other is what one rank finds."""
    parts: list[torch.Tensor] = []

    def gather(rows: torch.Tensor) -> torch.Tensor:
        parts.append(rows)
        return torch.zeros(ITEMS, DIM)

    with torch.no_grad():
        for rank in range(3):
            made(share=Share(rank=rank, world_size=3, gather=gather)).eval().encode(inputs_of(torch.rand(5, DIM), None))
    assert [len(part) for part in parts] == [2, 2, 3]
    np.testing.assert_allclose(torch.cat(parts)[PLACE >= 0], item_vectors(made())[PLACE >= 0], atol=1e-5)


def test_the_papers_network_has_the_papers_shapes() -> None:
    with torch.device("meta"):
        network = PictureNetwork(out_dim=100)
        sides, pixels_in = [], torch.empty(2, 3, 224, 224)
        for layer in network.convolutions:
            pixels_in = layer(pixels_in)
            if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
                sides.append((pixels_in.shape[1], pixels_in.shape[2]))
        out = network(torch.empty(2, 3, 224, 224))
    assert sides == [(64, 56), (64, 28), (256, 28), (256, 14), (256, 14), (256, 14), (256, 14), (256, 7)]
    assert out.shape == (2, 100)
    convolutions = 23_296 + 409_856 + 3 * 590_080  # 11·11·3·64 + 64, 5·5·64·256 + 256, 3·3·256·256 + 256
    connected = 51_384_320 + 16_781_312 + 409_700  # 7·7·256·4096 + 4096, 4096² + 4096, 4096·100 + 100
    assert sum(parameter.numel() for parameter in network.parameters()) == convolutions + connected
    kinds = [type(layer).__name__ for layer in network.connected]
    assert kinds == ["Flatten", "Linear", "ReLU", "Dropout", "Linear", "ReLU", "Dropout", "Linear"]


def test_tastes_start_uniformly() -> None:
    spec = made(initial_range=0.01).tables()["user"]
    rows = spec.initialise(70_000, torch.Generator().manual_seed(3))
    assert 0 <= float(rows.min()) < 1e-6 and 0.01 - 1e-6 < float(rows.max()) <= 0.01
    assert float(rows.mean()) == pytest.approx(0.005, rel=0.01)
    part = spec.initialise(70_000, torch.Generator().manual_seed(3), range(65_000, 66_000))
    assert torch.equal(part, rows[65_000:66_000]), "drawn in parts as at once"


def test_what_is_drawn_is_a_square_of_the_picture_and_sometimes_its_mirror_image() -> None:
    stored = pixels(SIDE)
    pictures = ItemPictures(stored, np.array([0, 1, 2, 3, 4], np.int32), side=8)
    items = torch.arange(5)
    np.testing.assert_array_equal(pictures.middle(items), stored[:, 2:10, 2:10].transpose(0, 3, 1, 2))
    torch.manual_seed(0)
    corners, mirrored = set(), 0
    for _ in range(40):
        for item, drawn in enumerate(pictures.drawn(items, flip=True).permute(0, 2, 3, 1).numpy()):
            squares = {(row, column, turn): stored[item, row : row + 8, column : column + 8][:, :: -1 if turn else 1]
                       for row in range(5) for column in range(5) for turn in (False, True)}  # fmt: skip
            (found,) = [place for place, square in squares.items() if np.array_equal(square, drawn)]
            corners.add(found[:2])
            mirrored += found[2]
    assert len(corners) == 25 and 70 < mirrored < 130
    torch.manual_seed(1)
    first = pictures.drawn(items, flip=True)
    torch.manual_seed(1)
    assert torch.equal(first, pictures.drawn(items, flip=True))
    assert not torch.equal(first, pictures.drawn(items, flip=True))


def test_pixels_are_scaled_a_channel() -> None:
    given = torch.tensor([0, 127, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    found = scaled(given, (0.5, 0.25, 0.0), (0.5, 1.0, 2.0)).flatten()
    np.testing.assert_allclose(found, [-1.0, 127 / 255 - 0.25, 0.5], atol=1e-6)
    with pytest.raises(ValueError, match="wanted squares of at least 13 × 13"):
        ItemPictures(pixels(), PLACE, side=13)
