"""Proportional memory of processes: pages that several share count for each by its share (Linux)."""

from pathlib import Path


def proportional_mb(pid: int, folder: Path) -> dict[str, float]:
    """MiB of a process in all, and of the files that it has mapped from `folder`."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    total = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    mapped, inside, prefix = 0, False, f"{folder.resolve()}/"
    for line in Path(f"/proc/{pid}/smaps").read_text(encoding="utf-8", errors="replace").splitlines():
        words = line.split(maxsplit=5)
        if "-" in words[0] and not words[0].endswith(":"):
            inside = len(words) == 6 and words[5].startswith(prefix)
        elif inside and words[0] == "Pss:":
            mapped += int(words[1])
    return {"all": total / 1024, "mapped": mapped / 1024}
