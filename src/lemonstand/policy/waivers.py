"""Waivers: a requirement that is knowingly not met, with reason, owner and an end."""

from __future__ import annotations

import datetime as dt

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Waiver(BaseModel):
    """Why somebody answers for doing less than a text asks for, and until when.

    Args:
        reason: why it can't be met, or need not be here.
        owner: who answers for it: a person or a team that can be asked.
        date: the day it was granted.
        expires: the first day it holds no longer.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    reason: str = Field(min_length=8, description="why it is not met")
    owner: str = Field(min_length=2, description="who answers for it")
    date: dt.date = Field(description="the day it was granted, YYYY-MM-DD")
    expires: dt.date = Field(description="the first day it holds no longer, YYYY-MM-DD")

    @model_validator(mode="after")
    def _ends_after_it_began(self) -> Waiver:
        if self.expires <= self.date:
            raise ValueError(f"it expires on {self.expires}, which is not after {self.date}")
        return self

    def expired(self, today: dt.date) -> bool:
        """Whether it holds no longer on a day."""
        return today >= self.expires
