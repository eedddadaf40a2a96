"""What customers used, by a gateway's log: one line of JSON for each request.

Gateway and swarm know nothing of each other but this: a line has the key, the tokens that the
engine counted, and those that the key's budget was charged. Where the engine did not count, as it
does not for a client that leaves in the middle, these are what was seen of the answer, a token a
part, and the prompt by its length. A line of an older gateway has no charge: where an engine worked
and did not count, its tokens are not known.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from shoestring.errors import BadValueError
from shoestring.swarm.words import WordError, read_word

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MARK: Final = b'"event":"request"'
LONGEST_LINE: Final = 1 << 20
MOST_TOKENS: Final = 10**12
REFERENCE_CHARACTERS: Final = 48
MADE_BY_ENGINE: Final = frozenset({"miss", "bypass"})
CLIENT_LEFT: Final = 499
CHARGED_IN: Final = "charged_input_tokens"
CHARGED_OUT: Final = "charged_output_tokens"


@dataclass(frozen=True)
class Use:
    """What one request of a customer used.

    Attributes:
        reference: of it, for the book.
        key_id: the customer's key.
        key_name: for people.
        tokens_in: None: not known.
        tokens_out: likewise.
        by_charge: the engine did not count all of it: it is what the key's budget was charged.
    """

    reference: str
    key_id: str
    key_name: str
    tokens_in: int | None
    tokens_out: int | None
    by_charge: bool = False


def uses(log: Iterable[bytes]) -> Iterator[Use]:
    """Yield the requests for which engines worked, of the lines of a gateway's log.

    Raises:
        BadValueError: a line of a request is none; nothing behind it was yielded.
    """
    for number, line in enumerate(log, 1):
        if MARK not in line:
            continue  # of the start, of a library, of a refusal
        try:
            use = _use(read_word(line[:LONGEST_LINE]))
        except (WordError, KeyError, TypeError) as error:
            raise BadValueError(
                f"line {number} of the log is no request's ({error}): give the log as it was "
                "written, each line whole"
            ) from error
        if use is not None:
            yield use


def _use(said: dict[str, Any]) -> Use | None:
    """Return what a line says; None: no engine worked for it."""
    if said["event"] != "request" or said["cache"] not in MADE_BY_ENGINE:
        return None
    counted = _count(said["input_tokens"]), _count(said["output_tokens"])
    if counted[1] is None and said["operation"] == "embeddings":
        counted = counted[0], 0
    charged = _count(said.get(CHARGED_IN)), _count(said.get(CHARGED_OUT))
    if charged == (0, 0):
        return None
    if counted[1] is None and not said["stream"]:
        charged = charged[0], None  # nobody saw how long it was
    if None in counted and None in charged and not _engine_worked(said):
        return None
    by_charge = None in counted and None not in charged
    known = counted if None not in counted else charged if by_charge else (None, None)
    named = [str(said[name]) for name in ("key_id", "request_id", "began_utc", "t_utc")]
    sha256 = hashlib.sha256("\n".join(named).encode()).hexdigest()
    return Use(
        sha256[:REFERENCE_CHARACTERS], named[0], str(said["key_name"]),
        *known, by_charge=by_charge,
    )  # fmt: skip


def _count(count: Any) -> int | None:
    if count is None:
        return None
    if type(count) is not int or not 0 <= count <= MOST_TOKENS:
        raise TypeError("a count of tokens that is none")
    return count


def _engine_worked(said: dict[str, Any]) -> bool:
    """Tell whether an engine may have worked for a line whose charge is not known."""
    if CHARGED_IN in said:  # a gateway that knows where none did
        return True
    if said["failure"] is None or said["ttft_s"] is not None:
        return True
    return bool(said["status"] == CLIENT_LEFT or said["input_tokens"] is not None)
