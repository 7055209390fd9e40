"""Random interactions, in which nothing but a look at the target itself tells what a user took."""

import numpy as np
import pytest
import torch
from model_inputs import inputs_for

from braidrec.graph.build import build_interactions
from braidrec.graph.histories import Histories, SomeItems
from braidrec.graph.neighbourhood import FullGraph
from braidrec.graph.relation import INTERACTIONS
from braidrec.models.contract import Batch
from braidrec.models.systems.acf import ACF

USERS, ITEMS, PER_USER, TRAINED = 240, 40, 6, 160
RANDOM = np.random.default_rng(0)
PAIRS = np.array([(user, item) for user in range(USERS) for item in RANDOM.permutation(ITEMS)[:PER_USER]])
INTERACTION_GRAPH = build_interactions(PAIRS[:, 0], PAIRS[:, 1], USERS, ITEMS)


class ShowsTheTarget(Histories):
    """The mistake."""

    def drawn(self, users: torch.Tensor, cap: int, *, without: torch.Tensor | None = None) -> SomeItems:
        return super().drawn(users, cap)


def order_of_unseen_users(histories: Histories) -> float:
    """Train on the rows of some users; how often a row of the others has its item above one that is not his."""
    torch.manual_seed(3)
    features = {"text": (torch.randn(ITEMS, 8), torch.ones(ITEMS, dtype=torch.bool))}
    model = ACF(dim=16, initial_std=0.1, dims={"text": 8}, shapes={"text": (8,)}, histories=histories, attention_dim=16)
    tables = {
        name: spec.initialise(spec.num_rows(USERS, ITEMS), torch.Generator().manual_seed(1)).requires_grad_()
        for name, spec in model.tables().items()
    }
    optimizer = torch.optim.Adam([*tables.values(), *model.parameters()], lr=0.02)
    source = FullGraph({INTERACTIONS: INTERACTION_GRAPH}, device=torch.device("cpu"), kernel="dgl")

    def differences(pairs: np.ndarray) -> torch.Tensor:
        others = [RANDOM.choice(np.setdiff1d(np.arange(ITEMS), PAIRS[PAIRS[:, 0] == user, 1])) for user in pairs[:, 0]]
        users, items = torch.from_numpy(pairs).unbind(1)
        real = torch.ones(len(users))
        batch = Batch(users=users, items=items, negatives=torch.tensor(others)[:, None], real=real, weight=real)
        seeds, places = torch.unique(batch.nodes(USERS), return_inverse=True)
        inputs = inputs_for(model, source, tables, seeds, num_users=USERS, num_items=ITEMS, features=features)
        encoded = model.encode(inputs)
        u, i, j = batch.split(encoded.vectors.index_select(0, places))
        u = model.users_of_rows(u, inputs, batch)
        assert j is not None
        return (u * (i - j[:, 0])).sum(-1)

    seen = PAIRS[PAIRS[:, 0] < TRAINED]
    for _ in range(16):
        for rows in np.array_split(RANDOM.permutation(seen), 8):
            optimizer.zero_grad()
            torch.nn.functional.softplus(-differences(rows)).mean().backward()
            optimizer.step()
    with torch.no_grad():
        return float((differences(PAIRS[PAIRS[:, 0] >= TRAINED]) > 0).float().mean())


@pytest.mark.slow
def test_a_target_that_only_its_own_history_explains_cannot_be_told() -> None:
    """480 rows of unseen users: chance is 0.5 ± 0.023. With the target in view it would be nearly certain."""
    assert abs(order_of_unseen_users(Histories(INTERACTION_GRAPH, USERS)) - 0.5) < 0.1
    assert order_of_unseen_users(ShowsTheTarget(INTERACTION_GRAPH, USERS)) > 0.85
