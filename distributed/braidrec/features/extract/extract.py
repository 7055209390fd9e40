"""Raw media of a data set's items → `features/<modality>/` (docs/extraction.md)."""

import os
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from rich.console import Console

from braidrec.config.base import ConfigError
from braidrec.config.extract import ExtractConfig
from braidrec.data.description import FileEntry
from braidrec.data.folder import DatasetFolder
from braidrec.data.stages import ray_session
from braidrec.errors import RunError
from braidrec.features.extract.assemble import (
    SHEET_FILE,
    Assembly,
    home_of,
    publish,
    write_ledger,
    write_rejects,
    write_vectors,
)
from braidrec.features.extract.encoders import build_encoder
from braidrec.features.extract.encoders.contract import Encoder, FittedEncoder
from braidrec.features.extract.fit import fit, state_name
from braidrec.features.extract.ledger import Ledger, next_generation, read_ledger, work_name
from braidrec.features.extract.manifest import Manifest, Plan, open_manifest, plan_rows
from braidrec.features.extract.pipeline import Work, encode_all, plan_reference
from braidrec.features.extract.progress import ExtractionProgress
from braidrec.features.extract.provenance import key_of, provenance, source_facts
from braidrec.features.extract.quality import Quality, Shown, look_at
from braidrec.features.extract.sheet import token_on
from braidrec.training.lease import Lease

NOUNS = {"text": "texts", "image": "images", "audio": "sounds", "video": "videos"}


@dataclass(frozen=True, kw_only=True)
class ExtractResult:
    """What an extraction made.

    Attributes:
        path: the dataset folder.
        modality: its name.
        num_items: items of the data set.
        num_vectors: items that have a vector now.
        dim: numbers of a vector.
        encoded: vectors that this run computed; 0: everything was there already.
        kept: vectors that were there already.
        rejects: what stands in the rejects table, by reason.
        unknown_rows: rows of the manifest about items that the data set does not have.
        seconds: that encoding took, with reading and writing, without the start of Ray.
        home: where ledger, rejects and sheet are.
        quality: what the look at the features found; None: not asked for.
    """

    path: str
    modality: str
    num_items: int
    num_vectors: int
    dim: int
    encoded: int
    kept: int
    rejects: Mapping[str, int]
    unknown_rows: int
    seconds: float
    home: str
    quality: Quality | None


def extract(config: ExtractConfig, *, console: Console | None = None) -> ExtractResult:
    """Extract one modality. What an earlier run with the same encoder and settings did is not done again.

    Args:
        console: where progress is told; None: standard output.
    Raises:
        ConfigError: an encoder that cannot be had, or does not fit the media; another process extracts this modality.
        DatasetError: no data set, or a manifest that cannot be used.
        RunError: more broken media than `max_failed` allows, or an encoder that fails. What was done stays.
    """
    folder = DatasetFolder.open(config.data)
    encoder = build_encoder(config.encoder, config.limits)
    manifest = open_manifest(config, folder)
    if manifest.form == "text" and encoder.medium != "text":
        raise ConfigError(
            f"encoder.kind={config.encoder.kind} reads {NOUNS[encoder.medium]}, the source gives texts; choose a text "
            "encoder, or name a column of addresses in source.uri"
        )
    # Ray starts its workers at niceness 15, and whatever else runs on a machine takes the cores from the encoder.
    os.environ.setdefault("RAY_worker_niceness", "0")
    home = home_of(folder, config.modality)
    home.filesystem.create_dir(home.path, recursive=True)
    with Lease(home, "the extraction of"), ray_session():
        # read anew: another process may have published this modality before the lease was ours
        return _Extraction(config, DatasetFolder.open(config.data), encoder, manifest, console or Console()).run()


class _Extraction:
    """The steps, one method each."""

    def __init__(
        self, config: ExtractConfig, folder: DatasetFolder, encoder: Encoder, manifest: Manifest, console: Console
    ) -> None:
        self.config = config
        self.folder = folder
        self.encoder = encoder
        self.manifest = manifest
        self.console = console
        self.home = home_of(folder, config.modality)

    def run(self) -> ExtractResult:
        plan = plan_rows(self.manifest, self.folder)
        work = Work(
            # a copy: what the encoder learns is not for those who only prepare
            manifest=self.manifest, limits=self.config.limits, encoder=copy(self.encoder), places=plan_reference(plan),
            current=None, output=self.home, generation=0, dtype=self.config.dtype,
        )  # fmt: skip
        facts = provenance(self.config, self.encoder)
        if isinstance(self.encoder, FittedEncoder):
            with self.console.status("fitting the encoder to items of the train split"):
                fitted_on = fit(self.encoder, work, plan, self.config, self.folder, self.home, facts)
            facts = {**facts, "fitted_on": fitted_on}
        key = key_of(facts)
        progress = self._encode(work, plan, key)
        ledger = self._ledger(key).only(plan.wanted)
        if len(ledger.items) < len(plan.wanted):
            raise RunError(
                f"{self.home.uri}: {len(plan.wanted) - len(ledger.items):,} of {len(plan.wanted):,} items that were "
                "worked on are not in the parts; something removed them. Nothing was published: start again"
            )
        assembly = Assembly(
            folder=self.folder, modality=self.config.modality, ledger=ledger, key=key, facts=facts,
            dtype=self.config.dtype, token=ledger.digest(key),
        )  # fmt: skip
        return self._finish(assembly, plan, progress)

    def _published(self) -> Mapping[str, Any]:
        described = self.folder.description.modalities.get(self.config.modality)
        return {} if described is None else described.provenance

    def _ledger(self, key: str) -> Ledger:
        return read_ledger(self.home, key, self._published())

    def _encode(self, work: Work, plan: Plan, key: str) -> ExtractionProgress:
        import ray

        before = self._ledger(key)
        work = replace(
            work, current=ray.put(before.current(self.config.limits)), output=self.home.child(work_name(key)),
            generation=next_generation(before.files),
        )  # fmt: skip
        total = len(plan.wanted)
        allowed = int(self.config.max_failed * total)
        with ExtractionProgress(total, NOUNS[self.encoder.medium], self.console) as progress:
            for answer in encode_all(work, self.encoder, self.config):
                progress.add(answer)
                if progress.num_broken > allowed:
                    break
        if progress.num_broken > allowed:
            raise self._too_many(progress, total, key, plan)
        return progress

    def _too_many(self, progress: ExtractionProgress, total: int, key: str, plan: Plan) -> RunError:
        ledger = self._ledger(key).only(plan.wanted)
        write_rejects(self.folder, self.config.modality, ledger, plan.duplicates, np.zeros(0, np.int32))
        lines = "".join(f"\n  {count:>7,}  {reason}" for reason, count in ledger.failed().items())
        return RunError(
            f"{progress.num_broken:,} of {total:,} {progress.what} are broken, max_failed={self.config.max_failed} "
            f"allows {int(self.config.max_failed * total):,}; by reason, so far:{lines}\nEach of them: "
            f"{self.home.uri}/rejects.parquet. Mend the media, or --set max_failed=…; what is done stays: start again"
        )

    def _finish(self, assembly: Assembly, plan: Plan, progress: ExtractionProgress) -> ExtractResult:
        published = self._published()
        files: dict[str, FileEntry] = {}
        missing = np.setdiff1d(np.arange(self.folder.num_items, dtype=np.int32), plan.wanted).astype(np.int32)
        rejects = write_rejects(self.folder, assembly.modality, assembly.ledger, plan.duplicates, missing)
        unchanged = published.get("token") == assembly.token and published.get("key") == assembly.key
        if unchanged:
            described = self.folder.description
            dim = described.modalities[assembly.modality].dim
            self.home.child(work_name(assembly.key)).remove()  # what it says of rejects stands in the ledger
        else:
            vectors, dim = write_vectors(assembly)
            files = {**vectors, **write_ledger(assembly)}
            if isinstance(self.encoder, FittedEncoder):
                name = state_name(assembly.key)
                files[f"extracted/{assembly.modality}/{name}"] = self._entry(name)
            described = publish(assembly, files, dim, self._provenance(assembly, plan, rejects))
        quality = self._quality(assembly, plan)
        good = described.modalities[assembly.modality].num_vectors
        return ExtractResult(
            path=self.folder.path, modality=assembly.modality, num_items=self.folder.num_items, num_vectors=good,
            dim=dim,
            encoded=progress.encoded, kept=progress.kept, rejects=rejects, unknown_rows=plan.unknown,
            seconds=progress.seconds, home=self.home.uri, quality=quality,
        )  # fmt: skip

    def _provenance(self, assembly: Assembly, plan: Plan, rejects: Mapping[str, int]) -> dict[str, Any]:
        good = int(assembly.ledger.is_good.sum())
        return {
            **assembly.facts,
            "source": source_facts(self.config),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "counts": {"vectors": good, "rejects": dict(rejects), "rows of unknown items": plan.unknown},
            "key": assembly.key,
            "token": assembly.token,
        }

    def _entry(self, name: str) -> FileEntry:
        location = self.home.child(name)
        return FileEntry(bytes=location.size(), sha256=location.sha256())

    def _quality(self, assembly: Assembly, plan: Plan) -> Quality | None:
        """Look, unless the sheet that is there shows these very features."""
        if not self.config.quality.enabled or token_on(self.home.child(SHEET_FILE)) == assembly.token:
            return None
        with self.console.status("looking at the features"):
            folder = DatasetFolder.open(self.folder.path)
            shown = Shown(manifest=self.manifest, plan=plan, medium=self.encoder.medium, limits=self.config.limits)
            return look_at(folder, self.config.modality, self.config.quality, shown, assembly.token)
