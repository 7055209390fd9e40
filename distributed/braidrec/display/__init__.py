"""What the driver shows a person: progress, tables, and little of the engine's own chatter."""

from braidrec.display.progress import ProgressDisplay
from braidrec.display.quiet import QuietRay, quiet_ray
from braidrec.display.summary import print_recommendations, print_summary

__all__ = ["ProgressDisplay", "QuietRay", "print_recommendations", "print_summary", "quiet_ray"]
