"""The relations of a run: those that stay, and views of them that are drawn anew each epoch."""

from collections.abc import Callable, Mapping

from braidrec.data.randomness import seed_for
from braidrec.graph.relation import Relation

View = Callable[[Relation, int], Relation]
"""`(relation, seed)` → the perturbed relation, a function of the seed alone, so that all ranks draw the same."""


class RelationSet:
    """Relations by name.

    Args:
        fixed: those that stay as they are.
        views: by name, the relation that is perturbed and how.
        seed: of the run.
    """

    def __init__(
        self, fixed: Mapping[str, Relation], views: Mapping[str, tuple[str, View]] | None = None, *, seed: int = 0
    ) -> None:
        self.fixed = dict(fixed)
        self.views = dict(views or {})
        self.seed = seed

    def origin(self, name: str) -> str:
        """The fixed relation behind a name: itself, or the one that a view perturbs."""
        return self.views[name][0] if name in self.views else name

    def at(self, epoch: int, base: Mapping[str, Relation] | None = None) -> dict[str, Relation]:
        """The views of an epoch.

        Args:
            base: the relations to perturb, where they are not the fixed ones themselves (another integer type).
        """
        relations = self.fixed if base is None else base
        drawn = {}
        for name, (origin, view) in self.views.items():
            relation = view(relations[origin], seed_for(self.seed, f"view {name}", epoch))
            relation.name = name
            drawn[name] = relation
        return drawn
