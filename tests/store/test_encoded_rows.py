"""Encoded dev examples in the cache."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.messages import assert_message

from harness.data.dataset import TaskData
from harness.errors import ExitCode, IncompleteError
from harness.store.encoded_rows import RowsKey, load_encoded_rows, save_encoded_rows

KEY = RowsKey("data", "backbone", 32, None)


def test_rows_return_without_texts(tmp_path: Path, few_rows: TaskData) -> None:
    """Examples are read back unchanged, without their texts."""
    save_encoded_rows(tmp_path, KEY, few_rows.dev)
    back = load_encoded_rows(tmp_path, KEY)
    assert back is not None
    assert back.texts == ((),) * len(few_rows.dev)
    for one, other in ((back.ids, few_rows.dev.ids), (back.labels, few_rows.dev.labels)):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    for one, other in (
        (back.tokens.ids, few_rows.dev.tokens.ids),
        (back.tokens.types, few_rows.dev.tokens.types),
    ):
        assert [row.tolist() for row in one] == [row.tolist() for row in other]
        assert {row.dtype for row in one} == {np.dtype(np.int32)}


@pytest.mark.parametrize(
    "changed", [{"data": "other"}, {"backbone": "other"}, {"max_length": 64}, {"limit": 5}]
)
def test_other_keys_hold_no_rows(
    tmp_path: Path, few_rows: TaskData, changed: dict[str, object]
) -> None:
    """Examples under another key are not found."""
    save_encoded_rows(tmp_path, KEY, few_rows.dev)
    assert load_encoded_rows(tmp_path, replace(KEY, **changed)) is None


def test_rows_are_written_once(tmp_path: Path, few_rows: TaskData) -> None:
    """Examples are written once, and no other file is left."""
    save_encoded_rows(tmp_path, KEY, few_rows.dev)
    path = KEY.path(tmp_path)
    before = path.stat().st_mtime_ns
    save_encoded_rows(tmp_path, KEY, few_rows.train)
    assert path.stat().st_mtime_ns == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("content", [b"", b"PK half", b"text"])
def test_damaged_rows_name_data_dir(tmp_path: Path, few_rows: TaskData, content: bytes) -> None:
    """The error for a damaged file says what to do."""
    save_encoded_rows(tmp_path, KEY, few_rows.dev)
    KEY.path(tmp_path).write_bytes(content)
    with pytest.raises(IncompleteError) as caught:
        load_encoded_rows(tmp_path, KEY)
    assert_message(caught, KEY.path(tmp_path), "--data-dir", code=ExitCode.INCOMPLETE)


def test_unwritable_folder_is_incomplete(tmp_path: Path, few_rows: TaskData) -> None:
    """A folder that cannot be written is an IncompleteError."""
    (tmp_path / "rows").write_text("a file in the way")
    with pytest.raises(IncompleteError) as caught:
        save_encoded_rows(tmp_path, KEY, few_rows.dev)
    assert_message(caught, "dev", code=ExitCode.INCOMPLETE)
