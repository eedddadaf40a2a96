"""What several tests of the swarm share."""

import pytest

from shoestring.swarm.proof import windows


@pytest.fixture
def unhurried(monkeypatch):
    """Close windows after their steps alone: a busy machine is silent, and in mid-step, too."""
    monkeypatch.setattr(windows, "QUIET_S", 600.0)
    monkeypatch.setattr(windows, "OLD_S", 600.0)
