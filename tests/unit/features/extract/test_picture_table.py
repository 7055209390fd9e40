"""Images → squares on the disk: what is missing, broken, huge or turned; kept, noticed when replaced, refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from braidrec.config.extract import ImageLimitsConfig, ManifestSourceConfig, TextFieldsConfig
from braidrec.data.errors import DatasetError
from braidrec.data.folder import DatasetFolder
from braidrec.data.planted import generate_planted
from braidrec.features.extract import pictures, pipeline
from braidrec.features.extract.manifest import open_source, plan_rows
from braidrec.features.extract.media import MediaError
from braidrec.features.extract.pictures import PictureTable, Squares, picture_table

LIMITS = ImageLimitsConfig(max_pixels=40_000)
RED, BLUE = (250, 10, 20), (10, 20, 250)


@pytest.fixture
def folder(tmp_path: Path) -> DatasetFolder:
    generate_planted(
        str(tmp_path / "data"), num_users=10, num_items=8, num_interactions=30, num_topics=2, modalities={}
    )
    return DatasetFolder.open(str(tmp_path / "data"))


def halves(path: Path, size: tuple[int, int], turn: int | None = None) -> None:
    """The left half red, the right one blue."""
    image = Image.new("RGB", size, RED)
    image.paste(BLUE, (size[0] // 2, 0, *size))
    exif = Image.Exif()
    if turn is not None:
        exif[0x0112] = turn
    image.save(path, exif=exif, quality=95)


@pytest.fixture
def manifest(folder: DatasetFolder, tmp_path: Path) -> Path:
    """Items 0 to 6 of eight: wide, tall, turned by its EXIF; missing, corrupt, huge, no address."""
    ids = folder.item_ids().to_pylist()
    halves(tmp_path / "wide.png", (40, 20))
    halves(tmp_path / "tall.png", (20, 40))
    halves(tmp_path / "turned.jpg", (32, 32), turn=3)
    halves(tmp_path / "huge.png", (300, 300))
    whole = (tmp_path / "wide.png").read_bytes()
    (tmp_path / "corrupt.png").write_bytes(whole[: len(whole) // 2])
    names = ["wide.png", "tall.png", "turned.jpg", "not-there.png", "corrupt.png", "huge.png", ""]
    rows = "".join(f"{item},{name}\n" for item, name in zip(ids, names, strict=False))
    (tmp_path / "images.csv").write_text(f"item_id,file\n{rows}")
    return tmp_path / "images.csv"


def table(
    folder: DatasetFolder, file: Path, side: int = 10, fit: str = "crop", max_failed: float = 0.9, **more: object
) -> PictureTable:
    source = ManifestSourceConfig(paths=(str(file),), uri="file")
    opened = open_source(source, folder, name="image", text=TextFieldsConfig())
    return picture_table(
        opened, plan_rows(opened, folder), folder.num_items, Squares(side=side, fit=fit, limits=LIMITS),
        cache=file.parent / "cache", max_failed=max_failed, threads=2, **more,
    )  # fmt: skip


def near(pixel: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool(np.abs(pixel.astype(int) - colour).max() < 12)


def test_squares_and_what_cannot_be_one(folder: DatasetFolder, manifest: Path) -> None:
    found = table(folder, manifest)
    assert (found.place >= 0).tolist() == [True, True, True, False, False, False, False, False]
    assert dict(found.failed) == {
        "missing file": 1, "corrupt image": 1, "too many pixels": 1, "no medium": 1,
    }  # fmt: skip
    wide, tall, turned = (found.pixels[found.place[item]] for item in range(3))
    for square in (wide, tall):  # of the wide one the middle half, of the tall one the middle rows: both meet there
        assert near(square[5, 1], RED) and near(square[5, 8], BLUE)
    assert near(turned[5, 1], BLUE) and near(turned[5, 8], RED), "upside down"
    assert "3 of 8 items have one, 1 corrupt image, 1 missing file" in found.fact


def test_the_middle_and_the_whole(folder: DatasetFolder, tmp_path: Path) -> None:
    """Four vertical stripes: the middle square shows the inner two, the stretched one all four."""
    image = Image.new("RGB", (40, 20), RED)
    for place, colour in ((10, BLUE), (20, (0, 0, 0)), (30, (255, 255, 255))):
        image.paste(colour, (place, 0, 40, 20))
    image.save(tmp_path / "stripes.png")
    (tmp_path / "images.csv").write_text(f"item_id,file\n{folder.item_ids()[0].as_py()},stripes.png\n")
    crop = table(folder, tmp_path / "images.csv", side=20).pixels[0]
    assert near(crop[10, 2], BLUE) and near(crop[10, 17], (0, 0, 0))
    whole = table(folder, tmp_path / "images.csv", side=20, fit="stretch").pixels[0]
    assert near(whole[10, 1], RED) and near(whole[10, 7], BLUE) and near(whole[10, 18], (255, 255, 255))


def test_kept_and_made_again_where_a_file_was_replaced(
    folder: DatasetFolder, manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = table(folder, manifest)
    with monkeypatch.context() as patched:
        patched.setattr(pictures, "load_here", lambda *arguments: pytest.fail("decoded again"))
        again = table(folder, manifest)
    np.testing.assert_array_equal(first.pixels, again.pixels)
    Image.new("RGB", (30, 30), BLUE).save(manifest.parent / "wide.png")
    changed = table(folder, manifest)
    assert near(changed.pixels[changed.place[0]][5, 1], BLUE)
    with pytest.raises(DatasetError, match=r"of 7 images 3 so far are broken.*max_failed=0.3 allows 2"):
        table(folder, manifest, max_failed=0.3)


def test_too_many_broken_ones_and_no_room_are_refused(
    folder: DatasetFolder, manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DatasetError, match=r"of 7 images 1 so far are broken \(such as item 3: .*no such file"):
        table(folder, manifest, max_failed=0.05)
    assert not list((manifest.parent / "cache").glob("*/pictures.json")), "nothing half made is taken for a table"
    free = pictures.shutil.disk_usage(manifest.parent)._replace(free=100)
    monkeypatch.setattr(pictures.shutil, "disk_usage", lambda place: free)
    with pytest.raises(DatasetError, match="set `cache` to a larger disk"):
        table(folder, manifest)


def test_a_disk_that_does_not_answer_leaves_no_table_without_its_images(
    folder: DatasetFolder, manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once: read again. Twice: refused, and nothing is stored."""
    read, refusals = pipeline.read_medium, 2

    def weak(uri: str, *arguments: Any) -> bytes:
        nonlocal refusals
        if uri == "tall.png" and refusals:
            refusals -= 1
            raise MediaError("unreadable", f"{uri}: Input/output error")
        return read(uri, *arguments)

    monkeypatch.setattr(pipeline, "read_medium", weak)
    with pytest.raises(DatasetError, match=r"item 1: its image could not be read twice \(tall.png: Input/output error"):
        table(folder, manifest)
    assert not list((manifest.parent / "cache").glob("*/pictures.json"))
    refusals = 1
    found = table(folder, manifest)
    assert refusals == 0 and near(found.pixels[found.place[1]][5, 1], RED)
    assert (found.place >= 0).tolist() == [True, True, True, False, False, False, False, False]
    assert "unreadable" not in found.failed and sum(found.failed.values()) == 4


@pytest.mark.slow
def test_ray_data_makes_the_same(folder: DatasetFolder, manifest: Path) -> None:
    from braidrec.data.stages import ray_session

    here = table(folder, manifest)
    there = manifest.parent / "elsewhere"
    there.mkdir()
    for file in manifest.parent.glob("*.*"):
        (there / file.name).write_bytes(file.read_bytes())
    with ray_session():
        by_ray = table(folder, there / "images.csv", use_ray=True)
    np.testing.assert_array_equal(by_ray.pixels, here.pixels)
    np.testing.assert_array_equal(by_ray.place, here.place)
    assert dict(by_ray.failed) == dict(here.failed)
