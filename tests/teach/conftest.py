"""Every test of the exercises has a progress file of its own, never the user's."""

import pytest


@pytest.fixture(autouse=True)
def own_progress(tmp_path, monkeypatch):
    """A fresh state folder."""
    monkeypatch.setenv("SORA_EDU_HOME", str(tmp_path / "state"))
    return tmp_path / "state"
