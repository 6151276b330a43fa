"""Types for the fields of an algorithm's config, with the range that a value must lie in.

Configs are checked when a protocol is expanded, so that a wrong value ends in one line before
anything runs.
"""

from typing import Annotated

from pydantic import Field

Count = Annotated[int, Field(ge=1)]
Steps = Annotated[int, Field(ge=0)]  # a number of steps that may be none
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]  # rates, scales
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]  # weights
Finite = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Dropout = Annotated[float, Field(ge=0, lt=1)]
Widths = tuple[Count, ...]  # of hidden layers
