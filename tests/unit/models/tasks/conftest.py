"""The helpers of the models' and systems' tests are helpers of the tasks' too."""

import sys
from pathlib import Path

MODEL_TESTS = Path(__file__).parents[1]
for folder in (MODEL_TESTS, MODEL_TESTS / "systems", MODEL_TESTS / "fusion"):
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
