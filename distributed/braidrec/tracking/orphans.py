"""Runs whose process is gone are ended, so that nothing stays RUNNING for ever."""

import time
from typing import Any

from braidrec.tracking.owner import HEARTBEAT_TAG, Owner
from braidrec.tracking.store import absolute_tracking_uri, connect

ORPHAN_TAG = "braidrec.orphaned"
HEARTBEAT_LIMIT_SECONDS = 3600.0


def close_orphans(
    uri: str, experiment: str, *, heartbeat_limit_seconds: float = HEARTBEAT_LIMIT_SECONDS, client: Any = None
) -> list[str]:
    """End, as KILLED, the runs of `experiment` that are RUNNING although their owner is gone.

    An owner of this machine is gone when its process is; one of another machine when its heartbeat is older than
    `heartbeat_limit_seconds`. The limit is generous because heartbeats also stop while the server is away; a living
    run that was closed by mistake reopens itself with its next contact. Runs without an owner's tags are left alone.

    Returns:
        Ids of the runs that were ended.
    """
    client = client or connect(absolute_tracking_uri(uri))
    found = client.get_experiment_by_name(experiment)
    if found is None:
        return []
    closed = []
    for run in _running(client, found.experiment_id):
        reason = _why_orphaned(run.data.tags, heartbeat_limit_seconds)
        if reason is not None:
            client.set_tag(run.info.run_id, ORPHAN_TAG, reason)
            client.set_terminated(run.info.run_id, "KILLED", _last_sign_of_life(run))
            closed.append(run.info.run_id)
    return closed


def _running(client: Any, experiment_id: str) -> list[Any]:
    runs: list[Any] = []
    token = None
    while True:
        page = client.search_runs([experiment_id], "attributes.status = 'RUNNING'", page_token=token)
        runs += page
        token = page.token
        if not token:
            return runs


def _why_orphaned(tags: dict[str, str], limit: float) -> str | None:
    owner = Owner.from_tags(tags)
    if owner is None:
        return None
    now = time.strftime("%Y-%m-%d %H:%M:%S %z")
    if owner.is_here():
        return None if owner.is_alive() else f"process {owner.pid} on {owner.host} was gone at {now}"
    heartbeat = tags.get(HEARTBEAT_TAG, "")
    if not heartbeat.isdecimal():
        return None
    silence = time.time() - int(heartbeat) / 1000
    if silence <= limit:
        return None
    return f"process {owner.pid} on {owner.host} had been silent for {silence:.0f} s at {now}"


def _last_sign_of_life(run: Any) -> int:
    heartbeat = run.data.tags.get(HEARTBEAT_TAG, "")
    return int(heartbeat) if heartbeat.isdecimal() else int(time.time() * 1000)
