"""The composed recommender: strands, fusion, encoders, item and user graphs, put together by choice."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from braidrec.graph.hop import Neighbourhood
from braidrec.graph.propagate import propagate_to_last
from braidrec.graph.relation import INTERACTIONS
from braidrec.models.ahead import PropagatedAhead
from braidrec.models.cold_length import with_cold_length
from braidrec.models.contract import Branch, Encoded, Inputs, LossTerm, StepContext, TableSpec
from braidrec.models.encoders.contract import PLAIN, Encoder, PropagationView
from braidrec.models.fusion.fusion import Fusion
from braidrec.models.fusion.strands import parameter_name
from braidrec.models.hypergraph import LearnedHypergraph
from braidrec.models.learned_item_graph import LEARNED, LearnedItemGraph
from braidrec.models.score_fusion import ScoreFusion
from braidrec.models.sides import Sides
from braidrec.models.strands import ID, ItemStrands
from braidrec.models.tasks.contract import Task
from braidrec.models.user_features import UserFeatures

MAIN, ITEM_GRAPH, USER_GRAPH, HYPERGRAPH = "main", "item_graph", "user_graph", "hypergraph"
BESIDE = "beside"
"""The output that holds what graphs beside the user–item graph add to the seeds' vectors; views of the propagation have
it too."""
FUSED_ITEMS = "fused_items"
"""The output that holds the fused rows of all items in order, where the propagation began with all."""
SHARED = "shared"
USERS, ITEMS = "user", "item"


class ComposedRecommender(nn.Module):
    """Modalities and IDs braided into one user and one item vector (taxonomy of Xu et al., 2025).

    * **early**: an item's strands are fused, `h_i = fuse(e_i, P_m(x_i^m), …)`, users have one embedding, and the fused
      rows are encoded once.
    * **late, on vectors**: every strand is encoded on its own; then an item's representations are fused, and a user's.
    * **late, on scores**: every strand gives a score, and these are fused: the strands' vectors stand side by side.

    An item–item graph adds `Ŝ^{L} h` to the items' vectors, a user–user graph likewise to the users'.

    Args:
        strands: an item's ID and modality rows.
        encoder: for the user–item graph; one for all strands, or, where an encoder mixes columns, one a strand by name.
        fusion: of an item's strands: early, or late on vectors; None: late on scores.
        user_fusion: of a user's strands, late on vectors.
        score_fusion: late on scores.
        user_std: users' embeddings start as N(0, std²).
        user_features: what is known of users, added to their embeddings; None: nothing.
        aggregated_users: late: a user's row in a modality is the mean of the items' rows instead of an embedding.
        item_graph: hops on the relation `content`; 0: none.
        item_graph_on_id: what goes through the item graph: the ID embeddings, or the (early) fused rows.
        learned_items: the item graph, where it is learned; the model then gives itself the relation `learned`.
        user_graph: hops on the relation `co_interaction`; 0: none.
        hypergraph: learned, from the items' features, over which their ID embeddings reach items and users; None: none.
        matches_cold_length: at evaluation of all nodes, items without train interactions get vectors as long as those
            of the others are on average.
        trained_on: the relation that stands for `interactions` while training (a pruned view).
        tasks: self-supervised tasks by name; the names of the loss terms.
    """

    def __init__(
        self,
        *,
        strands: ItemStrands,
        encoder: nn.Module | Mapping[str, nn.Module],
        fusion: Fusion | None = None,
        early: bool = True,
        user_fusion: Fusion | None = None,
        score_fusion: ScoreFusion | None = None,
        user_std: float = 0.1,
        user_features: UserFeatures | None = None,
        aggregated_users: bool = False,
        item_graph: int = 0,
        item_graph_on_id: bool = True,
        learned_items: LearnedItemGraph | None = None,
        user_graph: int = 0,
        hypergraph: LearnedHypergraph | None = None,
        matches_cold_length: bool = False,
        trained_on: str = INTERACTIONS,
        tasks: Mapping[str, Task] | None = None,
    ) -> None:
        super().__init__()
        self.strands, self.fusion, self.early = strands, fusion, early
        by_strand = encoder if isinstance(encoder, Mapping) else {}
        own = {parameter_name(name): each for name, each in by_strand.items()}
        self.encoders = nn.ModuleDict({SHARED: encoder} if isinstance(encoder, nn.Module) else own)
        self.user_fusion, self.score_fusion = user_fusion, score_fusion
        self.aggregated = strands.modalities if aggregated_users and not early else ()
        self.embedded = tuple(name for name in strands.names if name not in self.aggregated)
        self.user_std, self.user_features = user_std, user_features
        self.item_graph, self.item_graph_on_id, self.user_graph = item_graph, item_graph_on_id, user_graph
        self.hypergraph, self.matches_cold_length = hypergraph, matches_cold_length
        self.learned_items = learned_items
        if learned_items is not None:  # otherwise this is no model that makes relations (`contract.LearnsRelations`)
            self.learned_relations = learned_items.learned_relations
        self.trained_on = trained_on
        self.ahead = PropagatedAhead({}, {})
        self.task_names = tuple(tasks or {})
        self.tasks = nn.ModuleDict({parameter_name(name): task for name, task in (tasks or {}).items()})  # type: ignore[misc]
        self.term_names = tuple(f"{name}{part}" for name, task in (tasks or {}).items() for part in task.parts)

    @property
    def dim(self) -> int:
        """Columns of a strand."""
        return self.strands.dim

    @property
    def attention_names(self) -> tuple[str, ...]:
        """The strands that the columns of the output "attention" belong to."""
        return tuple(sorted(self.strands.names))

    def tables(self) -> Mapping[str, TableSpec]:
        """Users' embeddings, a strand's beside the next one's, the items' IDs, and features that are trained."""
        width = self._early_width if self.early else self.dim * len(self.embedded)
        tables = self.strands.tables()
        if width:
            tables[USERS] = TableSpec(width=width, std=self.user_std, side="users")
        beside = (self.item_graph and self.item_graph_on_id) or self.hypergraph is not None
        if ID in self.strands.names or beside:
            tables[ITEMS] = TableSpec(width=self.dim, std=self.strands.initial_std, side="items")
        return tables

    def branches(self) -> Mapping[str, Branch]:
        """The user–item graph, those beside it, and the views that tasks look at."""
        layers = self._encoder.layers if self._on_graph else 0
        first = (INTERACTIONS,) if set(self.aggregated) & set(self._on_graph) else ()
        chain = first + (INTERACTIONS,) * layers
        in_training = first + (self.trained_on,) * layers
        branches = {MAIN: Branch(chain=chain, training=in_training)}
        if self.item_graph:
            relation = "content" if self.learned_items is None else LEARNED
            branches[ITEM_GRAPH] = Branch(chain=(relation,) * self.item_graph)
        if self.user_graph:
            branches[USER_GRAPH] = Branch(chain=("co_interaction",) * self.user_graph)
        if self.hypergraph is not None:
            # What a user belongs to is a softmax of a sum over the items: no part of the sum may be left to chance.
            branches[HYPERGRAPH] = Branch(chain=(INTERACTIONS,), every_neighbour=True)
        for task in self._all_tasks().values():
            for name, relations in task.views(self._encoder.layers).items():
                branches[name] = Branch(chain=None, training=(relations[:1] if first else ()) + relations)
        return branches

    def propagate_ahead(self, inputs: Inputs, max_bytes: int) -> tuple[str, ...]:
        """As `contract.PropagatesAhead`. It is exact for a modality whose users are aggregated, where projector and
        encoder are linear, and where neither modality dropout nor a task perturbs what is propagated."""
        perturbed = self.trained_on != INTERACTIONS or any(task.propagates_anew for task in self._all_tasks().values())
        if perturbed or not self._encoder.linear:
            return ()
        neighbourhood, num_levels = inputs.neighbourhoods[MAIN], self._encoder.width(1)
        sides = inputs.sides(None)

        def propagate(columns: Tensor) -> tuple[Tensor, Tensor]:
            rows = sides.join(columns.new_zeros(inputs.num_users, columns.shape[1]), columns)
            name = self.aggregated[0]
            rows = self._aggregate_users(inputs, neighbourhood, {name: rows})[name]
            return self._encoder.encode(neighbourhood.after_first_hop(), rows)

        bases, left = {}, max_bytes
        for name in self.strands.linear:
            basis = self.strands.basis(name, inputs) if name in self.aggregated else None
            needed = 0 if basis is None else sides.num_rows * (num_levels + 1) * basis.shape[1] * basis.element_size()
            if basis is not None and needed <= left:
                bases[name], left = basis, left - needed
        counted = {name: self.strands.counted(name, inputs) for name in bases}
        self.ahead = PropagatedAhead.of(bases, counted, propagate, sides.num_rows, num_levels)
        return tuple(bases)

    def encode(self, inputs: Inputs) -> Encoded:
        """Vectors of the seeds.

        At evaluation `outputs` holds "attention" where fusion weighs the strands: `[items among the seeds, M]`, strands
        in alphabetical order.
        """
        self.strands.draw_dropout()
        encoded = self._propagated(inputs, MAIN, PLAIN)
        beside = self._beside(inputs, encoded)
        if beside is not None:
            encoded = replace(encoded, vectors=encoded.vectors + beside, outputs={**encoded.outputs, BESIDE: beside})
        if self.matches_cold_length and not self.training and inputs.seeds is None and inputs.cold is not None:
            encoded = replace(encoded, vectors=with_cold_length(encoded.vectors, inputs.cold, inputs.num_users))
        return encoded

    def view_of(self, encoded: Encoded, inputs: Inputs, branch: str | None, view: PropagationView) -> Tensor:
        """The vectors of `encoded` after another propagation; item and user graph stay as they are."""
        vectors = self._propagated(inputs, branch or MAIN, view).vectors
        return vectors + encoded.outputs[BESIDE] if BESIDE in encoded.outputs else vectors

    def _propagated(self, inputs: Inputs, branch: str, view: PropagationView) -> Encoded:
        neighbourhood = inputs.neighbourhoods[branch]
        return self._early(inputs, neighbourhood, view) if self.early else self._late(inputs, neighbourhood, view)

    def _beside(self, inputs: Inputs, encoded: Encoded) -> Tensor | None:
        """What item graph, user graph and hypergraph add."""
        added = []
        if self.item_graph:
            added.append(self._on_item_graph(inputs, encoded))
        if self.user_graph:
            added.append(self._on_user_graph(inputs))
        if self.hypergraph is not None:
            added.append(self.hypergraph(inputs, inputs.neighbourhoods[HYPERGRAPH], inputs.table(ITEMS, None)))
        return sum(added[1:], added[0]) if added else None

    def terms(self, encoded: Encoded, inputs: Inputs, step: StepContext) -> Mapping[str, LossTerm]:
        """Those of the self-supervised tasks."""
        return {
            f"{name}{part}": term
            for name, task in self._all_tasks().items()
            for part, term in task.terms(self, encoded, inputs, step).items()
        }

    def strand_of_items(self, name: str, inputs: Inputs, items: Tensor) -> tuple[Tensor, Tensor]:
        """`[n, dim]` rows of a strand for some items, and which of them have it (a stand-in does not count)."""
        rows, _ = self.strands(inputs, items, only=(name,))
        present = torch.ones_like(items, dtype=torch.bool) if name == ID else inputs.features(name, items)[1]
        return rows[name], present

    def project(self, modality: str, features: Tensor) -> Tensor:
        """`[n, dim]` from `[n, F]` features of a modality."""
        return self.strands.project(modality, features)

    def _early(self, inputs: Inputs, neighbourhood: Neighbourhood, view: PropagationView) -> Encoded:
        assert self.fusion is not None
        sides = inputs.sides(neighbourhood.input_nodes)
        fused = self.fusion(*self.strands(inputs, sides.items))
        h = sides.join(self._user_rows(inputs, sides.users), fused.vectors)
        vectors, ego = self._encoder.encode(neighbourhood, h, view)
        outputs = {}
        if fused.weights is not None and not self.training:
            outputs["attention"] = self._of_seed_items(inputs, neighbourhood, fused.weights)
        if neighbourhood.input_nodes is None:
            outputs[FUSED_ITEMS] = fused.vectors
        return Encoded(vectors=vectors, ego=ego, outputs=outputs)

    def _of_seed_items(self, inputs: Inputs, neighbourhood: Neighbourhood, of_items: Tensor) -> Tensor:
        """From values of the input items `[n, M]` those of the items among the seeds."""
        sides = inputs.sides(neighbourhood.input_nodes)
        nobody = of_items.new_zeros(sides.num_rows - len(of_items), of_items.shape[1])
        at_seeds = neighbourhood.at_seeds(sides.join(nobody, of_items), 0)
        return inputs.sides(inputs.seeds).of_items(at_seeds, inputs.num_users)

    def _late(self, inputs: Inputs, neighbourhood: Neighbourhood, view: PropagationView) -> Encoded:
        by_strand, present, ego = self._encode_strands(inputs, neighbourhood, view)
        seeds = inputs.sides(inputs.seeds)
        users = {name: seeds.of_users(rows, inputs.num_users) for name, rows in by_strand.items()}
        items = {name: seeds.of_items(rows, inputs.num_users) for name, rows in by_strand.items()}
        if self.score_fusion is not None:
            of_users, fused_items = self.score_fusion(users, items, present)
        else:
            assert self.fusion is not None and self.user_fusion is not None
            everything = {name: rows.new_ones(len(rows), dtype=torch.bool) for name, rows in users.items()}
            of_users = self.user_fusion(users, everything).vectors
            fused_items = self.fusion(items, present)
        wanted = fused_items.weights is not None and not self.training
        outputs = {"attention": fused_items.weights} if wanted else {}
        return Encoded(vectors=seeds.join(of_users, fused_items.vectors), ego=ego, outputs=outputs)

    def _encode_strands(
        self, inputs: Inputs, neighbourhood: Neighbourhood, view: PropagationView
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
        """Every strand's representation at the seeds, which of them the items there have, all level 0 side by side."""
        ahead = self.ahead.tables
        if not ahead:
            return self._propagate_strands(inputs, neighbourhood, view)
        assert view is PLAIN
        vectors, present, own = (
            self._propagate_strands(inputs, neighbourhood, view) if self._on_graph else ({}, {}, None)
        )
        egos = {} if own is None else dict(zip(self._on_graph, torch.split(own, self.dim, dim=1), strict=True))
        items = inputs.sides(inputs.seeds).items
        for name in ahead:
            vectors[name], egos[name] = self.ahead.rows(name, inputs.seeds, self.strands.coefficients(name))
            counted = self.ahead.counted[name]
            present[name] = counted if items is None else counted.index_select(0, items)
        return vectors, present, torch.cat([egos[name] for name in self.strands.names], dim=1)

    def _propagate_strands(
        self, inputs: Inputs, neighbourhood: Neighbourhood, view: PropagationView
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
        """The same for those that are propagated in every step.

        Presence is that of level 0: what dropout took from an item there must not count in the fusion either.
        """
        names = self._on_graph
        rows, counted, rest = self._late_rows(inputs, neighbourhood)
        had = self._of_seed_items(inputs, neighbourhood, torch.stack([counted[name] for name in names], dim=-1))
        present = dict(zip(names, had.unbind(-1), strict=True))
        if self._encoder.stackable:
            vectors, ego = self._encoder.encode(rest, torch.cat([rows[name] for name in names], dim=1), view)
            width = vectors.shape[1] // len(names)
            # A readout that concatenates levels has them outermost: level by level, strand by strand.
            levels = vectors.reshape(len(vectors), -1, len(names), self.dim)
            columns = levels.transpose(1, 2).reshape(len(vectors), len(names), width)
            return {name: columns[:, place] for place, name in enumerate(names)}, present, ego
        encoded = {name: self._encoder_of(name).encode(rest, rows[name], view) for name in names}
        ego = torch.cat([encoded[name][1] for name in names], dim=1)
        return {name: encoded[name][0] for name in names}, present, ego

    def _late_rows(
        self, inputs: Inputs, neighbourhood: Neighbourhood
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], Neighbourhood]:
        """Level 0 of every strand, the input items' presence, and what is to be propagated over.

        With aggregated users level 0 comes after the hop that makes their rows.
        """
        sides, names = inputs.sides(neighbourhood.input_nodes), self._on_graph
        of_items, counted = self.strands(inputs, sides.items, only=names if self.ahead.tables else None)
        embedded = self._user_rows(inputs, sides.users) if self.embedded else None
        rows = {}
        for name in names:
            if name in self.aggregated:
                num_users = sides.num_rows - len(of_items[name])
                of_users = of_items[name].new_zeros(num_users, self.dim)
            else:
                assert embedded is not None
                place = self.embedded.index(name)
                of_users = embedded[:, place * self.dim : (place + 1) * self.dim]
            rows[name] = sides.join(of_users, of_items[name])
        if not set(self.aggregated) & set(names):
            return rows, counted, neighbourhood
        return self._aggregate_users(inputs, neighbourhood, rows), counted, neighbourhood.after_first_hop()

    def _aggregate_users(
        self, inputs: Inputs, neighbourhood: Neighbourhood, rows: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        first = neighbourhood.hops[0]
        received: Sides = inputs.sides(first.dst_nodes)
        after = {}
        for name, values in rows.items():
            own = first.own(values)
            if name in self.aggregated:
                mean = received.of_users(first.aggregate(values, normalise="mean"), inputs.num_users)
                own = received.join(mean, received.of_items(own, inputs.num_users))
            after[name] = own
        return after

    def _on_item_graph(self, inputs: Inputs, encoded: Encoded) -> Tensor:
        neighbourhood = inputs.neighbourhoods[ITEM_GRAPH]
        sides = inputs.sides(neighbourhood.input_nodes)
        if self.item_graph_on_id:
            rows = inputs.table(ITEMS, sides.items)
        elif sides.items is None and FUSED_ITEMS in encoded.outputs:
            rows = encoded.outputs[FUSED_ITEMS]
        else:
            assert self.fusion is not None
            rows = self.fusion(*self.strands(inputs, sides.items)).vectors
        h = sides.join(rows.new_zeros(sides.num_rows - len(rows), rows.shape[1]), rows)
        if self.learned_items is not None:
            return self.learned_items.propagate(inputs, neighbourhood, h)
        return propagate_to_last(neighbourhood, h)

    def _user_rows(self, inputs: Inputs, users: Tensor | None) -> Tensor:
        embeddings = inputs.table(USERS, users)
        return embeddings if self.user_features is None else self.user_features(inputs, users, embeddings)

    def _on_user_graph(self, inputs: Inputs) -> Tensor:
        neighbourhood = inputs.neighbourhoods[USER_GRAPH]
        sides = inputs.sides(neighbourhood.input_nodes)
        rows = self._user_rows(inputs, sides.users)
        nothing = rows.new_zeros(sides.num_rows - len(rows), rows.shape[1])
        return propagate_to_last(neighbourhood, sides.join(rows, nothing))

    @property
    def _on_graph(self) -> tuple[str, ...]:
        """The strands that are propagated in every step."""
        return tuple(name for name in self.strands.names if name not in self.ahead.tables)

    @property
    def _early_width(self) -> int:
        assert self.fusion is not None
        return self.fusion.out_dim

    @property
    def _encoder(self) -> Encoder:
        encoder: Encoder = next(iter(self.encoders.values()))  # type: ignore[assignment]
        return encoder

    def _encoder_of(self, strand: str) -> Encoder:
        encoder: Encoder = self.encoders[parameter_name(strand)]  # type: ignore[assignment]
        return encoder

    def _all_tasks(self) -> dict[str, Task]:
        return dict(zip(self.task_names, self.tasks.values(), strict=True))  # type: ignore[arg-type]
