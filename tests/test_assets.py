"""Finding the files that ship."""

import pytest

from sora_edu import assets


def lay_out(folder, *files):
    """Make empty files under a folder and return it."""
    for name in files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    return folder


def test_a_checkout_has_its_data_beside_the_package(tmp_path, monkeypatch):
    lay_out(tmp_path, "sora_edu/__init__.py", "data/quizzes/02.json")
    monkeypatch.setattr(assets, "_PACKAGE", tmp_path / "sora_edu")
    assert assets.data_path("quizzes", "02.json") == tmp_path / "data/quizzes/02.json"


def test_a_wheel_has_its_data_inside_the_package(tmp_path, monkeypatch):
    lay_out(tmp_path, "sora_edu/_assets/quizzes/02.json", "data/quizzes/other.json")
    monkeypatch.setattr(assets, "_PACKAGE", tmp_path / "sora_edu")
    assert assets.data_path("quizzes", "02.json") == tmp_path / "sora_edu/_assets/quizzes/02.json"


@pytest.mark.parametrize("asked", [("quizzes", "03.json"), ("quizzes", "deep", "03.json")])
def test_a_missing_file_is_named_with_its_neighbours(tmp_path, monkeypatch, asked):
    lay_out(tmp_path, "sora_edu/__init__.py", "data/quizzes/00.json", "data/quizzes/02.json")
    monkeypatch.setattr(assets, "_PACKAGE", tmp_path / "sora_edu")
    with pytest.raises(FileNotFoundError, match=r"03\.json.*holds: 00\.json, 02\.json"):
        assets.data_path(*asked)


def test_no_data_at_all_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(assets, "_PACKAGE", tmp_path / "sora_edu")
    with pytest.raises(FileNotFoundError, match="data folder is missing"):
        assets.data_root()
