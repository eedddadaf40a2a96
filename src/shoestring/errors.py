"""What can go wrong, one class for each decision of the caller.

::

    ShoestringError            exit 1   something failed; the message says what and how to mend it
    ├── UserError              exit 2   the request cannot be met as given; mend it and ask again
    │   ├── BadValueError               an argument, parameter or suite file is wrong
    │   ├── BadModelError               a model name or model file is wrong
    │   ├── BadRunError                 a run folder is damaged, of a newer schema, or another run's
    │   └── MissingError                an engine, package or network is not there
    │       └── DiskFullError           no space is left; what was written before is whole
    ├── EngineLostError                 an engine of ours died or did not come up
    └── InterruptedRunError    exit 130 the user stopped the run; it can be resumed

Every message is one line: what happened, the value, the mend.
Failed requests inside a run are data, not exceptions (see ``docs/record-format.md``).
"""

from __future__ import annotations


class ShoestringError(Exception):
    """Base of all errors that the package raises on purpose; exit status 1."""

    exit_status = 1


class UserError(ShoestringError):
    """The request cannot be met as given; exit status 2."""

    exit_status = 2


class BadValueError(UserError):
    """An argument, a notebook parameter or a suite file holds a value that cannot be used."""


class BadModelError(UserError):
    """A model name is unknown or a model file is not a whole GGUF."""


class BadRunError(UserError):
    """A run folder is damaged, was written by a newer version, or does not match the request."""


class MissingError(UserError):
    """Something that the request needs is not there: an engine, a package, the network, space."""


class DiskFullError(MissingError):
    """No space is left for the next row; the rows before it are whole."""


class EngineLostError(ShoestringError):
    """An engine that we started died, or did not come up; the message says where its log is."""


class InterruptedRunError(ShoestringError):
    """The user stopped the run; its rows are safe and it can be resumed; exit status 130."""

    exit_status = 130
