"""Files that appear whole or not at all."""

from pathlib import Path

import pytest
from support.synthetic import everything_under

from harness.files.atomic import whole


def test_what_fails_leaves_the_old_file_and_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(OSError, match="full"), whole(path) as beside:
        beside.write_text("ne")
        raise OSError("full")
    assert everything_under(tmp_path) == {"file.txt": b"old"}


def test_a_link_in_the_place_of_the_file_beside_is_not_followed(tmp_path: Path) -> None:
    """A checkout may hold one that points out of the folder."""
    victim = tmp_path / "victim.txt"
    victim.write_text("mine")
    (tmp_path / ".file.txt.unfinished").symlink_to(victim)
    with whole(tmp_path / "file.txt") as beside:
        beside.write_text("new")
    assert everything_under(tmp_path) == {"file.txt": b"new", "victim.txt": b"mine"}
    assert not (tmp_path / "file.txt").is_symlink()


def test_a_link_that_points_to_itself_becomes_the_file(tmp_path: Path) -> None:
    loop = tmp_path / "loop.txt"
    loop.symlink_to(loop)
    with whole(loop) as beside:
        beside.write_text("new")
    assert (loop.is_symlink(), loop.read_text()) == (False, "new")


def test_what_a_link_points_to_is_written_and_keeps_its_permissions(tmp_path: Path) -> None:
    target, link = tmp_path / "elsewhere" / "file.txt", tmp_path / "link.txt"
    target.parent.mkdir()
    target.write_text("old")
    target.chmod(0o600)
    link.symlink_to(target)
    with whole(link) as beside:
        beside.write_text("new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert target.stat().st_mode & 0o777 == 0o600
