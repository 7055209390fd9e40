"""What of a rank's parts goes into a checkpoint, and back: the same for tables on every rank and for dealt-out ones."""

from collections.abc import Callable, Mapping, Sequence

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from braidrec.errors import CheckpointError
from braidrec.training.checkpoint import CheckpointStore, RunState, prefixed, with_prefix
from braidrec.training.checkpoint_rows import RowBlock
from braidrec.training.context import Collectives
from braidrec.training.optimizers import optimizer_tensors, restore_optimizers
from braidrec.training.table_factory import TrainedTable

TABLE, MODEL, OPTIMIZER = "table", "model", "optimizer"


class SavedState:
    """Saves and restores tables, optimizers and the model's parameters.

    Rank 0 writes what all ranks hold alike. Rows that are dealt out, and the optimizer's state of them, are written by
    the rank that holds them, under their places in the whole table: which rank had them is forgotten.

    Args:
        tables: by name, in the order in which the first optimizer has them.
        model: with its parameters.
        optimizers: of the tables, if there are any, and of the model.
        store: where to.
        context: this rank.
    """

    def __init__(
        self,
        tables: Mapping[str, TrainedTable],
        model: nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        store: CheckpointStore,
        context: Collectives,
    ) -> None:
        self._tables, self._model, self._optimizers = tables, model, optimizers
        self._store, self._context = store, context
        self._dealt_out = any(table.dealt_out for table in tables.values())

    def save(self, state: RunState) -> None:
        """Write a checkpoint, all ranks together; none goes on before it is complete.

        Raises:
            CheckpointError: a rank could not write; on all ranks, so that none waits for it.
        """
        whole, blocks = self._sorted()
        rank, num_ranks = self._context.rank, self._context.world_size
        if self._dealt_out:
            number = self._store.number(state)
            self._together(lambda: self._store.begin(number) if rank == 0 else None)
            self._together(lambda: self._store.save_rows(number, blocks, rank=rank, num_ranks=num_ranks))
        parts = num_ranks if self._dealt_out else 0
        self._together(lambda: self._store.save(whole, state, num_parts=parts) if rank == 0 else None)

    def held(self, name: str) -> range | None:
        """The rows that this rank holds of a checkpoint's tensor; None: all."""
        table = self._table_of(name)
        return table.held if table is not None and table.dealt_out else None

    def put(self, tensors: Mapping[str, Tensor], *, optimizers: bool) -> None:
        """Go on from what was saved, by whatever number of ranks. The tensors are those that this rank holds."""
        with torch.no_grad():
            for name, values in with_prefix(TABLE, tensors).items():
                self._tables[name].weight.copy_(values)
        load_model(self._model, tensors, self._store.folder.uri)
        if optimizers:
            restore_optimizers(self._optimizers, with_prefix(OPTIMIZER, tensors))
        self._context.barrier()  # rows of other ranks may be read where they are

    def _sorted(self) -> tuple[dict[str, Tensor], dict[str, RowBlock]]:
        """What all ranks hold alike, and what only this one does."""
        every = (
            prefixed(TABLE, {name: table.weight for name, table in self._tables.items()})
            | prefixed(MODEL, self._model.state_dict())
            | prefixed(OPTIMIZER, optimizer_tensors(self._optimizers))
        )
        held = {name: self.held(name) for name in every}
        return (
            {name: tensor for name, tensor in every.items() if held[name] is None},
            {name: RowBlock(rows.start, every[name]) for name, rows in held.items() if rows is not None},
        )

    def _table_of(self, name: str) -> TrainedTable | None:
        """The table whose rows, or the optimizer's state of whose rows, a tensor has."""
        prefix, _, rest = name.partition(":")
        if prefix == TABLE:
            return self._tables[rest]
        number, _, place = rest.partition("/")
        index, _, key = place.partition("/")
        if prefix != OPTIMIZER or number != "0" or not self._tables or key == "step":
            return None
        return list(self._tables.values())[int(index)]

    def _together(self, write: Callable[[], None]) -> None:
        """Let every rank write, and learn whether all could."""
        failure: Exception | None = None
        try:
            write()
        except (OSError, SafetensorError) as error:
            failure = error
        failed = torch.tensor([float(failure is not None)], device=self._context.device)
        if not float(self._context.all_reduce(failed)):
            return
        if failure is None:
            raise CheckpointError("the checkpoint was given up, for another worker could not write its part")
        raise CheckpointError(
            f"{self._store.folder.uri}: the checkpoint could not be written ({failure}); make room there; the "
            "checkpoints before it are whole, and --resume continues from the newest of them"
        ) from failure


def load_model(model: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Give a model the parameters of a checkpoint.

    Args:
        tensors: of the checkpoint.
        where: whose they are, for the message.
    Raises:
        CheckpointError: they are not this model's, which another version of the program may have called otherwise.
    """
    given = with_prefix(MODEL, tensors)
    try:
        model.load_state_dict(given)
    except RuntimeError as error:
        wanted = model.state_dict()
        differ = {
            "missing": wanted.keys() - given.keys(),
            "unexpected": given.keys() - wanted.keys(),
            "of another shape": {
                name for name in wanted.keys() & given.keys() if wanted[name].shape != given[name].shape
            },
        }
        told = "; ".join(f"{what}: {', '.join(sorted(names))}" for what, names in differ.items() if names)
        raise CheckpointError(
            f"{where}: what was saved are not the parameters of the model as it is in this version ({told or error}); "
            "train it anew with this version"
        ) from None


def without_optimizer(name: str) -> bool:
    """Whether a tensor of a checkpoint is wanted where nothing is trained any more."""
    return not name.startswith(f"{OPTIMIZER}:")
