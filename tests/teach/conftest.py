"""Every test of the exercises has a progress file of its own, never the user's; figures can be caught."""

from collections.abc import Iterator

import matplotlib.pyplot as plt
import pytest

from sora_edu.teach.figures import style


@pytest.fixture(autouse=True)
def own_progress(tmp_path, monkeypatch):
    """A fresh state folder."""
    monkeypatch.setenv("SORA_EDU_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture
def drawn(request, monkeypatch) -> Iterator[list[tuple]]:
    """The figures shown and their alt texts, by the module that the test's file calls `pictures`.

    They are drawn in the course's style, as in a chapter, whatever ran before in the same process.
    """
    pictures, shown = request.module.pictures, []
    monkeypatch.setattr(pictures, "show", lambda fig, *, alt: (plt.close(fig), shown.append((fig, alt))))
    with plt.rc_context():
        style()
        yield shown
