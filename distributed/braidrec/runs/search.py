"""The approximate search that a configuration asks for."""

from braidrec.config.load import ConfigError
from braidrec.config.runs import Search
from braidrec.evaluation.ann import AnnSearch
from braidrec.evaluation.held_out import Ints
from braidrec.evaluation.ranker import Ranker, VectorRanker

RECALL_USERS = 500


def search_of(
    config: Search, ranker: Ranker, run: str, candidates: Ints | None = None, *, tile_mb: int
) -> AnnSearch | None:
    """None where all items are to be scored.

    Args:
        run: what the run is called in messages.
    Raises:
        ConfigError: the ranker's score is no inner product, FAISS is not there, or numbers of cells that cannot be.
    """
    if config.index == "exact":
        return None
    if not isinstance(ranker, VectorRanker):
        raise ConfigError(
            f"index=ann: the scores of {run} are no inner products of a user's and an item's vector; set index=exact"
        )
    try:
        return AnnSearch(
            ranker,
            candidates,
            n_list=config.n_list,
            n_probe=config.n_probe,
            recall_users=config.recall_users or RECALL_USERS,
            tile_mb=tile_mb,
        )
    except (ModuleNotFoundError, ValueError) as error:
        raise ConfigError(str(error) if isinstance(error, ModuleNotFoundError) else f"index=ann: {error}") from None
