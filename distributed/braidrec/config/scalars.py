"""Bounded numbers and names that many configuration types have."""

from typing import Annotated

from pydantic import Field

Positive = Annotated[int, Field(gt=0)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Rate = Annotated[float, Field(ge=0.0, lt=1.0)]
PositiveFloat = Annotated[float, Field(gt=0.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
FOLDER_NAME = r"^\w[\w.-]*$"
FolderName = Annotated[str, Field(pattern=FOLDER_NAME)]
"""A name that is a folder's or a file's too, and leads nowhere else."""
