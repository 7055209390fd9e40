"""Several extractions that end at the same moment: `dataset.json` names the features of all of them."""

import threading
import time

import numpy as np
import pyarrow as pa

from braidrec.data.description import ProtocolDescription
from braidrec.data.folder import DatasetFolder
from braidrec.data.writer import DatasetWriter
from braidrec.features.extract import assemble
from braidrec.features.extract.assemble import Assembly, home_of, publish
from braidrec.features.extract.ledger import LEDGER_SCHEMA, Ledger


def test_nobody_overwrites_what_another_one_published(tmp_path, monkeypatch):
    writer = DatasetWriter.begin(str(tmp_path / "set"), seed=1)
    writer.write_users(pa.array(["u"]))
    writer.write_items(pa.array(["a", "b"]))
    for split in ("train", "valid", "test"):
        writer.write_split(split, {"user": np.zeros(1, np.int32), "item": np.zeros(1, np.int32)})
    writer.finish(name="tiny", protocol=ProtocolDescription(kind="given", seed=1), options={})
    folder = DatasetFolder.open(str(tmp_path / "set"))
    table = pa.table([[0, 1], [b"s" * 16] * 2, [None, "too small"], [None, "…"], ["{}"] * 2], schema=LEDGER_SCHEMA)
    names = [f"m{number}" for number in range(4)]

    class Slow(DatasetFolder):
        """Gives the others time to read the same `dataset.json`."""

        @classmethod
        def open(cls, path):
            found = DatasetFolder.open(path)
            time.sleep(0.1)
            return found

    monkeypatch.setattr(assemble, "DatasetFolder", Slow)

    def end(name):
        assembly = Assembly(
            folder=folder, modality=name, ledger=Ledger(table=table, part=np.zeros(2, np.int32), files=()), key="k",
            facts={}, dtype="float32", token="t",
        )  # fmt: skip
        home_of(folder, name).child("sheet.html").write_bytes(b"of earlier features")
        publish(assembly, {}, 3, {"token": "t"})

    threads = [threading.Thread(target=end, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    described = DatasetFolder.open(folder.path).description.modalities
    assert sorted(described) == names
    assert {(entry.num_vectors, entry.coverage) for entry in described.values()} == {(1, 0.5)}
    assert not list((tmp_path / "set").rglob("sheet.html")), "a sheet of earlier features goes"
