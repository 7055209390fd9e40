"""Baselines without training: popularity, and neighbours of items by common users or by content.

    python benchmarks/simple_baselines.py --data DATA/tiktok --work /tmp/baselines

Number of neighbours and shrinkage are chosen by Recall@20 on the validation split; the chosen setting is then tested.
Content is that of all modalities (each vector at length one, side by side, so that the cosine is the mean of theirs),
and of each alone.
"""

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from common import prepared, print_json, work_folder

METRICS = ("recall@10", "recall@20", "ndcg@10", "ndcg@20")
WATCHED = "valid/recall@20"
NEIGHBOURS = (5, 10, 20, 50, 100, 200, 500)
SHRINKAGE = (0.0, 10.0, 100.0)
Setting = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="raw MMRec folder or dataset folder")
    parser.add_argument("--neighbours", type=int, nargs="+", default=list(NEIGHBOURS))
    parser.add_argument("--shrinkage", type=float, nargs="+", default=list(SHRINKAGE))
    parser.add_argument("--work", help="folder for prepared data")
    arguments = parser.parse_args()
    work = work_folder(arguments.work)
    data = prepared(arguments.data, work)
    baselines = Baselines(data, work, arguments.neighbours, arguments.shrinkage)
    print_json({"data": data.description.name, **{name: baselines.result(name) for name in baselines.names}})


class Baselines:
    """All of them on one data set, each by its name."""

    def __init__(self, data: Any, work: Path, neighbours: Sequence[int], shrinkage: Sequence[float]) -> None:
        self.data, self.shrinkage = data, shrinkage
        self.counts = sorted({min(k, data.num_items - 1) for k in neighbours})
        self.judge = Judge(data)
        self.tables = _tables(data, work)

    @property
    def names(self) -> list[str]:
        by_content = ["item_knn_cbf"] if self.tables else []
        if len(self.tables) > 1:
            by_content += [f"item_knn_cbf, {modality}" for modality in self.tables]
        return ["popularity", "item_knn", *by_content]

    def result(self, name: str) -> dict[str, Any]:
        """Metrics of both splits, and the setting that was `chosen`, if there is something to choose."""
        if name == "popularity":
            return self.judge.popularity()
        if name == "item_knn":
            most = self.counts[-1]
            return self.judge.best((s, _by_users(self.data, most, s)) for s in self.shrinkage)(self.counts)
        modality = name.partition(", ")[2]
        tables = {modality: self.tables[modality]} if modality else self.tables
        return self.judge.best([(None, _by_content(tables, self.counts[-1]))])(self.counts)


class Judge:
    """Full ranking of both splits, the train items masked."""

    def __init__(self, data: Any) -> None:
        import numpy as np

        from braidrec.data.pairs import pairs_of
        from braidrec.evaluation.evaluator import Evaluator

        self.data, self.train = data, pairs_of(data, ["train"])
        users, items = data.edges("train")
        self.item_degree = np.bincount(items, minlength=data.num_items)
        self.evaluators = {
            split: Evaluator(
                held_out=pairs_of(data, [split]),
                mask=self.train,
                train_item_degree=self.item_degree,
                train_user_degree=np.bincount(users, minlength=data.num_users),
            )
            for split in ("valid", "test")
        }

    def popularity(self) -> dict[str, float]:
        from braidrec.evaluation.ranker import PopularityRanker

        ranker = PopularityRanker(self.item_degree, self.data.num_users)
        return self.metrics(ranker, "valid") | self.metrics(ranker, "test")

    def metrics(self, ranker: Any, split: str) -> dict[str, float]:
        evaluator = self.evaluators[split]
        found = evaluator.result(evaluator.run(ranker)).metrics
        return {f"{split}/{name}": round(found[name], 4) for name in METRICS}

    def best(self, searches: Iterable[tuple[float | None, Any]]) -> Callable[[list[int]], dict[str, Any]]:
        """From (shrinkage, most neighbours) to the setting that validation prefers among some numbers of them."""
        from braidrec.evaluation.neighbour_ranker import ItemNeighbourRanker

        def among(counts: list[int]) -> dict[str, Any]:
            tried: list[tuple[Setting, Any, dict[str, float]]] = []
            for shrinkage, neighbours in searches:
                for k in counts:
                    setting = {"neighbours": k} | ({} if shrinkage is None else {"shrinkage": shrinkage})
                    ranker = ItemNeighbourRanker(self.train, neighbours, k)
                    tried.append((setting, ranker, self.metrics(ranker, "valid")))
            setting, ranker, found = max(tried, key=lambda one: one[2][WATCHED])
            return {"chosen": setting, **found, **self.metrics(ranker, "test")}

        return among


def _by_users(data: Any, k: int, shrinkage: float) -> Any:
    from braidrec.graph.build import build_interactions
    from braidrec.graph.co_interaction import co_interaction_neighbours

    interactions = build_interactions(*data.edges("train"), data.num_users, data.num_items)
    return co_interaction_neighbours(interactions, data.num_users, k, shrinkage=shrinkage)


def _by_content(tables: dict[str, Any], k: int) -> Any:
    import torch

    from braidrec.graph.knn import content_neighbours
    from braidrec.training.untrained import side_by_side

    return content_neighbours(*side_by_side(tables), k, device=torch.device("cpu"))


def _tables(data: Any, work: Path) -> dict[str, Any]:
    from braidrec.config.model import ModalitiesConfig
    from braidrec.features.reading import load_feature_table
    from braidrec.training.features import modalities_of

    names = modalities_of(ModalitiesConfig(use=("*",)), data)
    return {name: load_feature_table(data, name, cache=work / "cache") for name in names}


if __name__ == "__main__":
    main()
