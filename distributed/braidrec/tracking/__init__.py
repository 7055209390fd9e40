"""MLflow: one run per training, logged by the driver alone, through an outbox that outlives a lost server.

Nothing here imports MLflow until a run is started, so a driver that does not track does not pay for the import.
"""

from braidrec.tracking.naming import metric_name
from braidrec.tracking.orphans import close_orphans
from braidrec.tracking.run import DatasetLineage, MlflowRun, TrackingOutcome
from braidrec.tracking.store import absolute_tracking_uri, default_tracking_uri

__all__ = [
    "DatasetLineage",
    "MlflowRun",
    "TrackingOutcome",
    "absolute_tracking_uri",
    "close_orphans",
    "default_tracking_uri",
    "metric_name",
]
