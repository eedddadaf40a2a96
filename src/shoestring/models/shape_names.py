"""How a synthetic model is named: ``NAME[/LAYERS]:QUANT``, after ``shape:``.

::

    llama-3.1-8b:q4_k_m          a shape of the list
    llama-3.1-8b/4:q4_k_m        the same with 4 layers only
    some/folder/config.json:q8_0 the shape of a model's own config.json
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, replace
from pathlib import Path

from shoestring.errors import BadModelError
from shoestring.models.quantising import BASE_TYPES
from shoestring.models.shapes import SHAPES, Shape

PATTERN = re.compile(r"(?P<base>.+?)(?:/(?P<layers>\d+))?:(?P<quant>[^:/]*)")
SHOWN = 80  # characters of a wrong name, in an error


@dataclass(frozen=True)
class ShapeName:
    """A parsed name.

    Attributes:
        base: a name of the list, or the path of a ``config.json``.
        layers: how many of the model's layers; None: all.
        quant: lower case, for example ``q4_k_m``.
    """

    base: str
    layers: int | None
    quant: str

    @property
    def is_config(self) -> bool:
        """Whether the shape is in a file."""
        return self.base.endswith(".json")


def parse_shape_name(text: str) -> ShapeName:
    """Parse what follows ``shape:``; no file is looked at.

    Raises:
        BadModelError: the shape, the layers or the quantisation are not known; the message names
            what is.
    """
    found = PATTERN.fullmatch(text)
    if found is None:
        raise BadModelError(
            f"{_shown(text)}: a synthetic model is named shape:NAME:QUANT or "
            "shape:NAME/LAYERS:QUANT, for example shape:llama-3.2-1b:q4_k_m"
        )
    layers = None if found["layers"] is None else _parse_layers(text, found["layers"])
    name = ShapeName(found["base"], layers, found["quant"].lower())
    if name.quant not in BASE_TYPES:
        raise BadModelError(
            f"{_shown(text)}: unknown quantisation {found['quant'][:20]!a}; "
            f"known are {', '.join(BASE_TYPES)}"
        )
    if not name.is_config:
        _check_known(text, name)
    return name


def load_shape(name: ShapeName) -> Shape:
    """Return the shape that a name means, with as many layers as it asks for.

    Raises:
        BadModelError: the ``config.json`` cannot be used, or has fewer layers.
    """
    if name.is_config:
        from shoestring.models.shape_configs import read_config

        try:
            path = Path(name.base).expanduser()
        except RuntimeError as error:
            raise BadModelError(
                f"{_shown(name.base)}: no such home folder; give the path in full"
            ) from error
        shape = read_config(path)
    else:
        shape = SHAPES[name.base]
    if name.layers is None:
        return shape
    if name.layers > shape.layers:
        raise BadModelError(_explain_layers(f"{name.base}/{name.layers}", shape))
    return replace(shape, layers=name.layers)


def _parse_layers(text: str, digits: str) -> int:
    layers = int(digits[:9])  # no model has more; the limit keeps the number small
    if layers < 1:
        raise BadModelError(f"{_shown(text)}: a model has at least 1 layer")
    return layers


def _check_known(text: str, name: ShapeName) -> None:
    if name.base not in SHAPES:
        near = difflib.get_close_matches(name.base, SHAPES, n=1, cutoff=0.6)
        hint = f"did you mean {near[0]}? " if near else ""
        raise BadModelError(
            f"{_shown(text)}: unknown shape; {hint}Known are {', '.join(SHAPES)}, "
            "and the path of a config.json"
        )
    if name.layers is not None and name.layers > SHAPES[name.base].layers:
        raise BadModelError(_explain_layers(text, SHAPES[name.base]))


def _explain_layers(text: str, shape: Shape) -> str:
    return f"{_shown(text)}: {shape.name} has {shape.layers} layers; ask for 1 to {shape.layers}"


def _shown(text: str) -> str:
    return ascii(text if len(text) <= SHOWN else text[:SHOWN] + "…")
