"""Every test of the exercises has a progress file of its own, never the user's; figures can be caught."""

import pytest


@pytest.fixture(autouse=True)
def own_progress(tmp_path, monkeypatch):
    """A fresh state folder."""
    monkeypatch.setenv("SORA_EDU_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture
def drawn(request, monkeypatch) -> list[tuple]:
    """The figures shown and their alt texts, by the module that the test's file calls `pictures`."""
    pictures, shown = request.module.pictures, []
    monkeypatch.setattr(
        pictures, "show", lambda fig, *, alt: (pictures.plt.close(fig), shown.append((fig, alt)))
    )
    return shown
