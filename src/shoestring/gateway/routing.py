"""Which engine answers for a name, and which is asked when that one is down.

A name is an alias, one variant of it (``ALIAS@VARIANT``), a model of an engine, or
``ENGINE/MODEL``. It is only ever looked up, never made into an address. A key sticks to one target
of an alias by weighted rendezvous hashing: targets get keys in proportion to their weights, and a
change of one target moves no key between the others.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shoestring.gateway.errors import Refusal
from shoestring.gateway.settings import name_variant, variant_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from shoestring.gateway.engines import EngineLink, Served
    from shoestring.gateway.keys import Key
    from shoestring.gateway.settings import Alias

VARIANT_MARK = "@"


@dataclass(frozen=True)
class Route:
    """A target that may answer: which engine, its own name for the model, and the variant's."""

    engine: EngineLink
    model: str
    variant: str

    @property
    def served(self) -> Served | None:
        """What the engine said of the model, or None: it has not been seen yet."""
        return self.engine.models.get(self.model)

    @property
    def digest(self) -> str:
        """What stands for the weights; empty: nobody says which they are."""
        served = self.served
        return served.digest if served is not None else self.engine.settings.digest or ""


class Router:
    """Looks names up.

    Args:
        engines: in the order of the settings.
        aliases: by name.
    """

    def __init__(self, engines: Iterable[EngineLink], aliases: Mapping[str, Alias]) -> None:
        self.engines = {engine.name: engine for engine in engines}
        self.aliases = dict(aliases)

    def names_for(self, key: Key) -> list[str]:
        """Return what a key may ask for: aliases, and models of engines that none of them is for.

        Those can be asked for by name all the same, but would be listed twice.
        """
        aliases = [name for name in self.aliases if key.may_use(name)]
        meant = {(to.engine, to.model) for name in aliases for to in self.aliases[name].targets}
        models = {
            name: None
            for engine in self.engines.values()
            for name in engine.models
            if (engine.name, name) not in meant and key.may_use(name)
        }
        return [*aliases, *(name for name in models if name not in aliases)]

    def knows(self, name: str) -> bool:
        """Whether anything has that name now."""
        return bool(self._routes(name))

    def details(self, name: str) -> Mapping[str, Any]:
        """Return what an engine says of a model; empty: nothing."""
        served = (route.served for route, _ in self._routes(name))
        return next((one.details for one in served if one is not None), {})

    def routes(self, name: str, key: Key) -> list[Route]:
        """Return the targets for a name, in the order in which they are asked.

        Raises:
            Refusal: the key may not use the name, or nothing has it.
        """
        plain = name.partition(VARIANT_MARK)[0]
        found = self._routes(name)
        if not found or not key.may_use(plain):
            # The same words for both: what others may use is nobody's to find out.
            raise Refusal(
                404, "unknown_model", f"model {name[:80]!r} is not here: GET /v1/models lists them"
            )
        if plain in self.aliases and VARIANT_MARK not in name:
            found.sort(key=lambda pair: -_score(key.id, plain, pair[0].variant, pair[1]))
        up = [route for route, _ in found if route.engine.state != "down"]
        down = [route for route, _ in found if route.engine.state == "down"]
        return up + down

    def _routes(self, name: str) -> list[tuple[Route, float]]:
        """Return the targets that a name means, each with its weight."""
        plain, mark, variant = name.partition(VARIANT_MARK)
        if plain in self.aliases:
            return [
                (Route(self.engines[one.engine], one.model, variant_of(one)), one.weight)
                for one in self.aliases[plain].targets
                if not mark or variant_of(one) == variant
            ]
        return [] if mark else self._of_engines(name)

    def _of_engines(self, name: str) -> list[tuple[Route, float]]:
        first, _, rest = name.partition("/")
        found = []
        for engine in self.engines.values():
            wanted = rest if rest and engine.name == first else name
            for model in (wanted, f"{wanted}:latest"):
                if model in engine.models:
                    found.append((Route(engine, model, name_variant(engine.name, model)), 1.0))
                    break
        return found


def _score(key_id: str, alias: str, variant: str, weight: float) -> float:
    """Return a target's rank for a key; the highest wins in proportion to the weights.

    Source: weighted rendezvous hashing, -weight / ln(hash in (0, 1)).
    """
    if weight == 0:
        return -1.0
    named = f"{key_id}\0{alias}\0{variant}"
    draw = int.from_bytes(hashlib.sha256(named.encode()).digest()[:7], "big")
    return -weight / math.log((draw + 0.5) / 2**56)
