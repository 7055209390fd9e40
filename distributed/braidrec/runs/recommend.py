"""`braidrec.recommend`: top-k lists and vectors of a finished run, as Parquet in the data set's own ids."""

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from braidrec.config.load import ConfigError, validate
from braidrec.config.runs import RecommendConfig
from braidrec.data.description import Split
from braidrec.data.pairs import pairs_of
from braidrec.data.storage import Location
from braidrec.evaluation.ann import AnnReport
from braidrec.evaluation.full_ranking import Ranking, rank_tiles
from braidrec.evaluation.held_out import UserItems
from braidrec.evaluation.mixture_ranker import MixtureRanker
from braidrec.evaluation.ranker import Ranker, VectorRanker
from braidrec.places import absolute_place
from braidrec.runs.finished import FinishedRun, open_run
from braidrec.runs.new_users import new_user_ranker, read_new_users
from braidrec.runs.search import search_of

_SPLITS: dict[str, list[Split]] = {
    "none": [],
    "train": ["train"],
    "train+valid": ["train", "valid"],
    "all": ["train", "valid", "test"],
}


@dataclass(frozen=True, kw_only=True)
class RecommendResult:
    """Where the files are.

    Attributes:
        unknown_items: with `new_users`: distinct item ids of the file that the data set does not have.
        approximate: with `index=ann`: what the lists are worth against exact ones.
        users_without_items: with `new_users`: users left out because none of their items is known.
    """

    recommendations: str
    num_users: int
    num_rows: int
    user_vectors: str | None = None
    item_vectors: str | None = None
    unknown_items: int = 0
    users_without_items: int = 0
    approximate: AnnReport | None = None


def recommend(
    run: str, *, progress: Callable[[int, int], None] = lambda done, total: None, **options: object
) -> RecommendResult:
    """The best items for users.

    Writes `recommendations.parquet`: user_id, rank (from 1), item_id, score; a user with fewer candidates than k gets
    fewer rows.

    Args:
        run: name of a finished run in `storage`, or its folder.
        progress: called with (users done, users in all).
        options: the keys of `RecommendConfig`: k, users, new_users, exclude, candidates_file, vectors, output, …
    Raises:
        ConfigError: an unknown user or item id, or a file that is not there.
        DatasetError: a file of new users that cannot be read.
    """
    return recommend_config(validate(RecommendConfig, {"run": run, **options}, "recommend()"), progress)


def recommend_config(config: RecommendConfig, progress: Callable[[int, int], None]) -> RecommendResult:
    """The same from a validated configuration, as jobs/recommend.py calls it."""
    run = open_run(config.run, config.storage, config.data_path)
    if config.vectors and not isinstance(run.ranker, VectorRanker):
        raise ConfigError(
            f"vectors=true: {run.folder.name} recommends by model.encoder.kind={run.config.model.encoder.kind}, which "
            "has no vectors; set vectors=false"
        )
    if config.new_users is not None and isinstance(run.ranker, MixtureRanker):
        raise ConfigError(
            f"new_users: {run.folder.name} is of model.encoder.kind={run.config.model.encoder.kind}, whose users "
            "are no mean of their items; train again with these users in the data, or name a run of another model"
        )
    item_ids = run.data.item_ids()
    who = _new_users(config, run, item_ids) if config.new_users is not None else _known_users(config, run)
    candidates = None
    if config.candidates_file is not None:
        candidates = _indices(_lines(config.candidates_file), item_ids, f"candidates_file {config.candidates_file}")
    folder = (
        Location.of(absolute_place(config.output)) if config.output else run.folder.location.child("recommendations")
    )
    target = folder.child("recommendations.parquet")
    search = search_of(config, who.ranker, run.folder.name, candidates, tile_mb=config.tile_mb)
    if search is not None:
        tiles = search.rank_tiles(who.wanted, mask=who.mask, k_max=config.k, progress=progress)
    else:
        tiles = rank_tiles(
            who.ranker,
            who.wanted,
            mask=who.mask,
            k_max=config.k,
            candidates=candidates,
            tile_mb=config.tile_mb,
            progress=progress,
        )
    num_rows = _write_lists(target, tiles, who.ids, item_ids)
    vectors = _write_vectors(folder, run, who, item_ids) if config.vectors else (None, None)
    return RecommendResult(
        recommendations=target.uri,
        num_users=len(who.wanted),
        num_rows=num_rows,
        user_vectors=vectors[0],
        item_vectors=vectors[1],
        unknown_items=who.unknown_items,
        users_without_items=who.without_items,
        approximate=None if search is None else search.report,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Who:
    """To whom it is recommended: all users that the ranker knows, those wanted, and what they are not shown again."""

    ids: Any
    wanted: NDArray[np.int64]
    ranker: Ranker
    mask: UserItems
    unknown_items: int = 0
    without_items: int = 0


def _known_users(config: RecommendConfig, run: FinishedRun) -> _Who:
    ids = run.data.user_ids()
    mask = pairs_of(run.data, _SPLITS[config.exclude])
    return _Who(ids=ids, wanted=_wanted_users(config, ids), ranker=run.ranker, mask=mask)


def _new_users(config: RecommendConfig, run: FinishedRun, item_ids: Any) -> _Who:
    if config.users is not None or config.users_file is not None:
        raise ConfigError("new_users with users or users_file: all users of the new_users file are recommended to")
    assert config.new_users is not None
    new = read_new_users(config.new_users, item_ids)
    nothing = UserItems.empty(num_users=len(new.ids), num_items=len(item_ids))
    return _Who(
        ids=new.ids,
        wanted=np.arange(len(new.ids)),
        ranker=new_user_ranker(run.ranker, new, cosine=run.ranks_by_cosine),
        mask=nothing if config.exclude == "none" else new.items,
        unknown_items=new.unknown_items,
        without_items=new.without_items,
    )


def _write_lists(target: Location, tiles: Iterable[Ranking], user_ids: Any, item_ids: Any) -> int:
    """Tile by tile, so that no more than a tile's lists are held; under its name only when it is whole."""
    schema = pa.schema(
        {"user_id": pa.string(), "rank": pa.int32(), "item_id": pa.string(), "score": pa.float32()}.items()
    )
    unfinished = target.sibling(f"{target.name}.unfinished")
    target.filesystem.create_dir(target.path.rpartition("/")[0], recursive=True)
    rows = 0
    with target.filesystem.open_output_stream(unfinished.path) as stream, pq.ParquetWriter(stream, schema) as writer:
        for tile in tiles:
            table = _as_table(tile, user_ids, item_ids, schema)
            writer.write_table(table)
            rows += table.num_rows
    target.filesystem.move(unfinished.path, target.path)
    return rows


def _as_table(tile: Ranking, user_ids: Any, item_ids: Any, schema: pa.Schema) -> pa.Table:
    row, place = np.nonzero(tile.items >= 0)
    return pa.table(
        {
            "user_id": user_ids.take(pa.array(tile.users[row])),
            "rank": pa.array((place + 1).astype(np.int32)),
            "item_id": item_ids.take(pa.array(tile.items[row, place])),
            "score": pa.array(tile.scores[row, place]),
        },
        schema=schema,
    )


def _write_vectors(folder: Location, run: FinishedRun, who: _Who, item_ids: Any) -> tuple[str, str]:
    """The score of a user and an item is the inner product of their vectors, plus `offset` of the file's metadata."""
    ranker = who.ranker
    assert isinstance(ranker, VectorRanker), "checked before anything was ranked"
    matrices = {
        "user": (who.ids, ranker.user_vectors(torch.arange(ranker.num_users)).numpy()),
        "item": (item_ids, ranker.item_vectors().numpy()),
    }
    uris = []
    for side, (ids, matrix) in matrices.items():
        column = pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), matrix.shape[1])
        table = pa.table({f"{side}_id": ids, "vector": column})
        table = table.replace_schema_metadata({"offset": repr(ranker.offset), "run": run.folder.uri})
        target = folder.child(f"{side}_vectors.parquet")
        with target.filesystem.open_output_stream(target.path) as stream:
            pq.write_table(table, stream)
        uris.append(target.uri)
    return uris[0], uris[1]


def _wanted_users(config: RecommendConfig, user_ids: Any) -> NDArray[np.int64]:
    if config.users is not None and config.users_file is not None:
        raise ConfigError("users and users_file: give one of them")
    if config.users_file is not None:
        return _indices(_lines(config.users_file), user_ids, f"users_file {config.users_file}")
    if config.users is not None:
        return _indices(list(config.users), user_ids, "users")
    return np.arange(len(user_ids))


def _indices(wanted: list[str], ids: Any, where: str) -> NDArray[np.int64]:
    """Positions of the ids, each once, in the order given."""
    if not wanted:
        raise ConfigError(f"{where}: no id in it; give at least one, or leave the key out")
    positions = pc.index_in(pa.array(wanted, pa.string()), value_set=ids)
    if positions.null_count:
        missing = [name for name, known in zip(wanted, positions.is_valid().to_pylist(), strict=True) if not known]
        nearest = difflib.get_close_matches(missing[0], ids.slice(0, 10_000).to_pylist(), n=1)
        hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
        raise ConfigError(
            f"{where}: {missing[0]!r} (and {len(missing) - 1} more) is not an id of this data set, such as "
            f"{ids[0].as_py()!r}.{hint}"
        )
    found = positions.to_numpy(zero_copy_only=False).astype(np.int64)
    _, first = np.unique(found, return_index=True)
    in_order: NDArray[np.int64] = found[np.sort(first)]
    return in_order


def _lines(file: str) -> list[str]:
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read ({error}); wanted a UTF-8 text file with one id a line") from None
    return [line.strip() for line in lines if line.strip()]
