"""cluster.yaml and .rayignore: what Ray itself says about them, without a cloud."""

import copy
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ray = pytest.importorskip("ray")

REPOSITORY = Path(__file__).parents[2]
CLUSTER = yaml.safe_load((REPOSITORY / "cluster.yaml").read_text(encoding="utf-8"))
SCHEMA = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text(encoding="utf-8"))


def validate_as_ray_does(config: dict[str, Any]) -> dict[str, Any]:
    """What `ray up` does before it speaks to the provider: fill in defaults, then validate."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared: dict[str, Any] = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    return prepared


def changed(path: tuple[str, ...], old: str, new: str) -> dict[str, Any]:
    """A copy in which the key `old` at `path` is called `new`."""
    config = copy.deepcopy(CLUSTER)
    place = config
    for key in path:
        place = place[key]
    place[new] = place.pop(old)
    return config


def test_it_passes_rays_schema() -> None:
    jsonschema.validate(CLUSTER, SCHEMA)


def test_ray_itself_accepts_it_and_knows_the_node_types() -> None:
    prepared = validate_as_ray_does(CLUSTER)
    assert prepared["head_node_type"] in prepared["available_node_types"]
    assert any("pip install" in command for command in prepared["worker_setup_commands"])


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ((), "setup_commands", "setup_comands"),
        (("docker",), "run_options", "run_option"),
        (("available_node_types", "gpu_worker"), "max_workers", "max_worker"),
        (("available_node_types", "gpu_worker", "docker"), "worker_image", "image"),
        (("available_node_types", "head"), "node_config", "node"),
    ],
)
def test_a_misspelt_key_is_refused(path: tuple[str, ...], old: str, new: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(changed(path, old, new), SCHEMA)
    with pytest.raises(jsonschema.ValidationError):
        validate_as_ray_does(changed(path, old, new))


def test_it_has_a_head_cpu_workers_and_gpu_workers_that_scale() -> None:
    types = CLUSTER["available_node_types"]
    assert set(types) == {"head", "cpu_worker", "gpu_worker"}
    assert "GPU" not in types["cpu_worker"]["resources"]
    assert types["gpu_worker"]["resources"]["GPU"] == 1
    for name in ("cpu_worker", "gpu_worker"):
        assert 0 <= types[name]["min_workers"] < types[name]["max_workers"] <= CLUSTER["max_workers"]
    assert any(option.startswith("--shm-size=") for option in CLUSTER["docker"]["run_options"])


def test_the_images_hold_the_pinned_ray_and_a_python_that_the_project_allows() -> None:
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", (REPOSITORY / "constraints.txt").read_text(), re.MULTILINE))
    images = [CLUSTER["docker"]["image"], CLUSTER["available_node_types"]["gpu_worker"]["docker"]["worker_image"]]
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["requires-python"] == ">=3.11,<3.13"
    assert images == [f"rayproject/ray:{pins['ray']}-py311", f"rayproject/ray:{pins['ray']}-py311-gpu"]


def test_what_the_setup_commands_need_is_mounted() -> None:
    (target,) = [target for target, source in CLUSTER["file_mounts"].items() if source == "."]
    assert any(f"cd {target} && pip install" in command for command in CLUSTER["setup_commands"])
    for excluded in (".git", ".venv", "/datasets", "/runs"):
        assert excluded in CLUSTER["rsync_exclude"]
    # Not anchored, these would leave out parts of the library, which has folders of the same names.
    assert not {"runs", "data"} & set(CLUSTER["rsync_exclude"])


def test_the_head_serves_jobs_on_the_port_that_the_comments_name() -> None:
    start = next(command for command in CLUSTER["head_start_ray_commands"] if "ray start" in command)
    assert "--dashboard-port=8265" in start
    assert "http://127.0.0.1:8265" in (REPOSITORY / "cluster.yaml").read_text(encoding="utf-8")


def test_every_thing_to_fill_in_is_marked() -> None:
    text = (REPOSITORY / "cluster.yaml").read_text(encoding="utf-8")
    unmarked = [
        line.strip()
        for line in text.splitlines()
        if re.match(r"\s*(region|availability_zone|ssh_user|InstanceType):", line) and "FILL IN" not in line
    ]
    assert unmarked == []


def test_an_upload_leaves_git_environments_data_and_runs_behind(tmp_path: Path) -> None:
    """The rules that `ray job submit --working-dir .` applies: .gitignore and .rayignore, read by Ray."""
    from ray._private.runtime_env.packaging import _dir_travel

    wanted = ["jobs/train.py", "distributed/braidrec/runs/evaluate.py", "distributed/braidrec/data/folder.py"]
    unwanted = [
        ".git/objects/ab/cd",
        ".venv/bin/python",
        "datasets/mine/dataset.json",
        "runs/mine/run.json",
        "mlruns/x",
    ]
    for name in (".gitignore", ".rayignore"):
        (tmp_path / name).write_text((REPOSITORY / name).read_text(encoding="utf-8"), encoding="utf-8")
    for name in (*wanted, *unwanted):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    uploaded: list[str] = []
    _dir_travel(
        tmp_path,
        [],
        lambda path: uploaded.append(path.relative_to(tmp_path).as_posix()) if path.is_file() else None,
        include_gitignore=True,
    )
    assert sorted(uploaded) == sorted([".gitignore", ".rayignore", *wanted])
