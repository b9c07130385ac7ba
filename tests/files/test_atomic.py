"""Atomic writing: files appear complete or not at all."""

from pathlib import Path

import pytest
from support.synthetic import everything_under

from harness.files.atomic import atomic_write


def test_failure_leaves_the_old_file(tmp_path: Path) -> None:
    """A failure leaves the old file and no temporary file."""
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(OSError, match="full"), atomic_write(path) as temporary:
        temporary.write_text("ne")
        raise OSError("full")
    assert everything_under(tmp_path) == {"file.txt": b"old"}


def test_link_beside_is_not_followed(tmp_path: Path) -> None:
    """A link with the name of the temporary file is not followed.

    A checkout may contain one that points outside the folder."""
    victim = tmp_path / "victim.txt"
    victim.write_text("mine")
    (tmp_path / ".file.txt.unfinished").symlink_to(victim)
    with atomic_write(tmp_path / "file.txt") as temporary:
        temporary.write_text("new")
    assert everything_under(tmp_path) == {"file.txt": b"new", "victim.txt": b"mine"}
    assert not (tmp_path / "file.txt").is_symlink()


def test_link_to_itself_becomes_file(tmp_path: Path) -> None:
    """A link to itself is replaced by the file."""
    loop = tmp_path / "loop.txt"
    loop.symlink_to(loop)
    with atomic_write(loop) as temporary:
        temporary.write_text("new")
    assert (loop.is_symlink(), loop.read_text()) == (False, "new")


def test_link_target_keeps_its_permissions(tmp_path: Path) -> None:
    """The target of a link is written and keeps its permissions."""
    target, link = tmp_path / "elsewhere" / "file.txt", tmp_path / "link.txt"
    target.parent.mkdir()
    target.write_text("old")
    target.chmod(0o600)
    link.symlink_to(target)
    with atomic_write(link) as temporary:
        temporary.write_text("new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert target.stat().st_mode & 0o777 == 0o600
