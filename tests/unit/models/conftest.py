"""The world of the systems' tests is that of the composed recommender's too."""

import sys
from pathlib import Path

SYSTEM_TESTS, FUSION_TESTS = (Path(__file__).parent / room for room in ("systems", "fusion"))
for folder in (SYSTEM_TESTS, FUSION_TESTS):
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
