"""What the rules look at, and the form of what they say."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from shoestring.analysis.calibration import worst_calibration
from shoestring.analysis.samples import Sample, by_case

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoestring.measure.records import Run

Warned = dict[str, str]


@dataclass(frozen=True)
class Evidence:
    """What the rules look at."""

    run: Run
    samples: Sequence[Sample]

    @cached_property
    def cases(self) -> dict[str, list[Sample]]:
        """The samples of each case, by a name for people."""
        return {
            f"{name} at concurrency {concurrency}": members
            for (name, concurrency), members in by_case(self.run, self.samples).items()
        }

    @cached_property
    def calibration(self) -> dict[str, Any]:
        """The worst error floor over the sessions."""
        return worst_calibration(self.run)

    def asked(self, members: Sequence[Sample]) -> dict[str, Any]:
        """Return what the suite asks of the case to which these samples belong."""
        name = members[0].case[0]
        cases: list[dict[str, Any]] = self.run.config["suite"]["cases"]
        return next((case for case in cases if case["name"] == name), {})


def warning(code: str, message: str) -> Warned:
    """Return a warning: a stable code, and one line with what was seen and the next step."""
    return {"code": code, "message": message}
