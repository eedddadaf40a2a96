"""What a user wants at most to pay and to wait for an answer, and whom they trust."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

from shoestring.errors import BadValueError
from shoestring.plan.memory import Settings

Preference = Literal["price", "latency"]

PREFERENCES: Final[tuple[Preference, ...]] = get_args(Preference)
MOST_LAYERS: Final = 1_024
MOST_TOKENS: Final = 1 << 24
MOST_AMOUNT: Final = 1 << 53
MOST_S: Final = 86_400.0
WORTH: Final[dict[Preference, float]] = {"price": 1.0, "latency": 1e12}
"""Micro-credits that a second a token counts as. So of two routes of one price the faster is taken,
and of two that are equally fast (to a microsecond a credit) the cheaper."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """Layers that are to be bought for one answer, and its limits.

    Attributes:
        model: as quotes name it.
        first: the first layer that is bought; those before it stay at home, for privacy.
        end: the one after the last that is bought.
        prompt_tokens: of the prompt.
        output_tokens: of the answer, at most.
        max_price: micro-credits for the whole answer; None: any.
        max_ttft_s: seconds to the first token; None: any.
        max_tpot_s: seconds a token; None: any.
        least_trust: 0 to 1.
        prefer: which of the routes within the limits is the best: the cheapest, or the fastest.
        owners: whose nodes may serve; None: anybody's.
        home_tpot_s: what this machine takes for its own part of each token.
        home_ttft_s: likewise of the prompt.

    Raises:
        BadValueError: a value cannot be used.
    """

    model: str
    first: int
    end: int
    prompt_tokens: int
    output_tokens: int
    max_price: int | None = None
    max_ttft_s: float | None = None
    max_tpot_s: float | None = None
    least_trust: float = 0.0
    prefer: Preference = "price"
    owners: frozenset[str] | None = None
    home_tpot_s: float = 0.0
    home_ttft_s: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.first < self.end <= MOST_LAYERS:
            raise BadValueError(
                f"layers {self.first} to {self.end}: give at least one, of at most {MOST_LAYERS}"
            )
        for name in ("prompt_tokens", "output_tokens"):
            _check(name, getattr(self, name), 1, MOST_TOKENS)
        if self.max_price is not None:
            _check("max_price", self.max_price, 0, MOST_AMOUNT)
        for name in ("max_ttft_s", "max_tpot_s"):
            if getattr(self, name) is not None:
                _check(name, getattr(self, name), 0, MOST_S)
        for name in ("home_tpot_s", "home_ttft_s"):
            _check(name, getattr(self, name), 0, MOST_S)
        _check("least_trust", self.least_trust, 0, 1)
        if self.prefer not in PREFERENCES:
            raise BadValueError(f"prefer: {self.prefer!a}: give {' or '.join(PREFERENCES)}")

    @property
    def layers(self) -> int:
        """How many are bought."""
        return self.end - self.first

    @property
    def trips_to_first(self) -> float:
        """Round trips to a node until the first token, as the planner counts them: a batch each."""
        return self.prompt_tokens / min(Settings.ubatch, self.prompt_tokens)


def _check(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:  # NaN, too
        raise BadValueError(f"{name}: {value}: give {least:g} to {most:g}")
