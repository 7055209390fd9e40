"""What a training says about its data set: where the vectors come from that it looks at."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from braidrec.config.load import validate
from braidrec.config.run import RunConfig
from braidrec.data.description import SPLITS, ProtocolDescription
from braidrec.data.folder import DatasetFolder
from braidrec.data.writer import DatasetWriter
from braidrec.training.tracked import lineage_of


@pytest.fixture
def folder(tmp_path: Path) -> DatasetFolder:
    writer = DatasetWriter.begin(str(tmp_path / "set"), seed=1)
    writer.write_users(pa.array(["u"]))
    writer.write_items(pa.array(["a", "b"]))
    ids, vectors = np.arange(2, dtype=np.int32), np.ones((2, 3), np.float32)
    for name in ("image", "text"):
        writer.write_features(name, ids, vectors, {"encoder": f"of {name}"})
    writer.write_features("profile", ids[:1], vectors[:1], {"encoder": "of users"}, side="user")
    for split in SPLITS:
        writer.write_split(split, {"user": np.zeros(1, np.int32), "item": np.zeros(1, np.int32)})
    writer.finish(name="d", protocol=ProtocolDescription(kind="given", seed=1), options={})
    return DatasetFolder.open(str(tmp_path / "set"))


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ({}, {}),
        ({"modalities": {"use": ["text"]}}, {"text": {"encoder": "of text"}}),
        (
            {"modalities": {"use": ["*"]}, "user_modalities": {"use": ["profile"]}},
            {
                "image": {"encoder": "of image"}, "text": {"encoder": "of text"},
                "user/profile": {"encoder": "of users"},
            },
        ),
    ],
)  # fmt: skip
def test_only_modalities_that_the_model_uses_are_inputs(
    folder: DatasetFolder, model: dict[str, Any], expected: dict[str, Any]
) -> None:
    config = validate(RunConfig, {"data": {"path": folder.path}, "model": model}, "test")
    lineage = lineage_of(folder, config)
    assert dict(lineage.features) == expected
    assert (lineage.digest, lineage.path) == (folder.digest, folder.path)
