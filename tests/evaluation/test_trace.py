"""Trace files: they are read back unchanged or refused, and never run code."""

import io
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.messages import assert_message, figures, names_in_order
from support.synthetic import TouchesAFile, assert_same_trace, random_trace

from harness.errors import ExitCode, IncompleteError
from harness.evaluation.trace import Trace, predictions, read_trace, trace_bytes
from harness.files import arrays

Arrays = dict[str, NDArray[np.generic]]


def arrays_of(trace: Trace) -> Arrays:
    return {name: getattr(trace, name) for name in Trace.__dataclass_fields__}


def write_npz(path: Path, arrays: Arrays) -> Path:
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trace.npz"


@pytest.mark.parametrize(("classes", "exit_layers"), [(2, (2, 4, 6)), (3, (12,)), (1, (1, 2))])
def test_trace_survives_a_round_trip(
    classes: int, exit_layers: tuple[int, ...], path: Path
) -> None:
    """A trace is read back unchanged."""
    trace = random_trace(1, exit_layers, rows=17, classes=classes)
    path.write_bytes(trace_bytes(trace))
    back = read_trace(path)
    assert_same_trace(back, trace)
    assert back.logits.shape == (len(exit_layers), 17, classes)
    assert back.logits.dtype == np.float32


def test_extreme_logits_keep_every_bit(path: Path) -> None:
    """Extreme finite logits are read back bit by bit."""
    limits = np.finfo(np.float32)
    logits = np.array([[[limits.max, limits.min], [limits.tiny, -0.0]]], dtype=np.float32)
    trace = replace(random_trace(1, (1,), rows=2), logits=logits)
    path.write_bytes(trace_bytes(trace))
    assert read_trace(path).logits.tobytes() == logits.tobytes()


def test_equal_traces_are_equal_bytes() -> None:
    assert trace_bytes(random_trace(3, (1, 2))) == trace_bytes(random_trace(3, (1, 2)))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("ids", np.arange(5)),
        ("labels", np.zeros(3)),
        ("lengths", np.ones((4, 1), dtype=np.int64)),
        ("exit_layers", np.array([1, 2, 3])),
        ("logits", np.zeros((2, 4), dtype=np.float32)),
        ("logits", np.zeros((3, 4, 2), dtype=np.float32)),
        ("logits", np.zeros((2, 5, 2), dtype=np.float32)),
        ("logits", np.zeros((2, 4, 2, 1), dtype=np.float32)),
    ],
)
def test_disagreeing_shapes_are_refused(field: str, value: NDArray[np.generic], path: Path) -> None:
    """Shapes that disagree are refused in memory and in a file."""
    trace = random_trace(1, (1, 2), rows=4)
    exits, rows = (value if field == "logits" else trace.logits).shape[:2]
    with pytest.raises(ValueError, match=r"\d") as error:
        replace(trace, **{field: value})
    assert names_in_order(
        str(error.value), exits, rows, *([value.shape] if field != "logits" else [])
    )
    with pytest.raises(IncompleteError) as caught:
        read_trace(write_npz(path, arrays_of(trace) | {field: value}))
    assert_message(caught, path, code=ExitCode.INCOMPLETE)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_infinite_logits_are_refused(bad: float, path: Path) -> None:
    """A logit that is not finite is refused in memory and in a file."""
    trace = random_trace(1, (1, 2), rows=4)
    logits = trace.logits.copy()
    logits[1, 3, 0] = bad
    with pytest.raises(ValueError, match="logit"):
        replace(trace, logits=logits)
    with pytest.raises(IncompleteError) as caught:
        read_trace(write_npz(path, arrays_of(trace) | {"logits": logits}))
    assert "logit" in assert_message(caught, path, code=ExitCode.INCOMPLETE)


@pytest.mark.parametrize("missing", list(Trace.__dataclass_fields__))
def test_file_lacking_array_is_refused(missing: str, path: Path) -> None:
    """A file without one of the arrays is refused."""
    arrays = arrays_of(random_trace(1, (1, 2)))
    del arrays[missing]
    with pytest.raises(IncompleteError) as caught:
        read_trace(write_npz(path, arrays))
    assert_message(caught, path, missing, code=ExitCode.INCOMPLETE)


def test_text_logits_are_refused(path: Path) -> None:
    """Logits that are not numbers are refused."""
    arrays = arrays_of(random_trace(1, (1, 2), rows=4)) | {"logits": np.full((2, 4, 2), "text")}
    with pytest.raises(IncompleteError) as caught:
        read_trace(write_npz(path, arrays))
    assert_message(caught, path, code=ExitCode.INCOMPLETE)


def test_missing_file_is_incomplete(path: Path) -> None:
    """A missing file and a folder are incomplete."""
    for missing in (path, path.parent):
        with pytest.raises(IncompleteError) as caught:
            read_trace(missing)
        assert_message(caught, missing, code=ExitCode.INCOMPLETE)


def test_truncated_trace_is_incomplete(path: Path) -> None:
    """A trace truncated at any point is incomplete."""
    content = trace_bytes(random_trace(1, (1, 2), rows=8))
    for size in [*range(0, len(content), 37), len(content) - 1]:
        path.write_bytes(content[:size])
        with pytest.raises(IncompleteError) as caught:
            read_trace(path)
        assert_message(caught, path, code=ExitCode.INCOMPLETE)


def test_flipped_byte_is_noticed_or_harmless(path: Path) -> None:
    """A flipped byte is detected or changes nothing."""
    trace = random_trace(1, (1, 2), rows=3)
    content = trace_bytes(trace)
    detected = 0
    positions = range(0, len(content), 4)
    for position in positions:
        path.write_bytes(
            content[:position] + bytes([content[position] ^ 0xFF]) + content[position + 1 :]
        )
        try:
            back = read_trace(path)
        except IncompleteError:
            detected += 1
        else:
            assert_same_trace(back, trace)
    assert detected > len(positions) // 2


@pytest.mark.parametrize(
    "content", [b"", b"not an archive", b"PK\x03\x04 nearly", b"\x93NUMPY", b"\x00" * 1000]
)
def test_other_files_are_no_traces(content: bytes, path: Path) -> None:
    path.write_bytes(content)
    with pytest.raises(IncompleteError) as caught:
        read_trace(path)
    assert_message(caught, path, code=ExitCode.INCOMPLETE)


def test_archives_of_text_are_refused(path: Path) -> None:
    """An archive of text and a single array are refused."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in Trace.__dataclass_fields__:
            archive.writestr(f"{name}.npy", "text")
    with pytest.raises(IncompleteError) as caught:
        read_trace(path)
    assert_message(caught, path, code=ExitCode.INCOMPLETE)
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(IncompleteError) as caught:
        read_trace(path)
    assert_message(caught, path, code=ExitCode.INCOMPLETE)


def test_pickled_file_runs_nothing(path: Path) -> None:
    """A pickled file is refused and runs nothing."""
    marker = path.parent / "ran"
    path.write_bytes(pickle.dumps(TouchesAFile(marker)))
    with pytest.raises(IncompleteError) as caught:
        read_trace(path)
    assert_message(caught, path, code=ExitCode.INCOMPLETE)
    assert not marker.exists()
    pickle.loads(path.read_bytes())
    assert marker.exists(), "the same bytes do run code when they are unpickled"


def test_pickled_arrays_run_nothing(path: Path) -> None:
    """Pickled objects inside an archive are refused and run nothing."""
    marker = path.parent / "ran"
    trap = np.empty(4, dtype=object)
    trap[:] = TouchesAFile(marker)
    with pytest.raises(IncompleteError) as caught:
        read_trace(write_npz(path, arrays_of(random_trace(1, (1, 2), rows=4)) | {"labels": trap}))
    assert_message(caught, path, "allow_pickle", code=ExitCode.INCOMPLETE)  # numpy's own word
    single = io.BytesIO()
    np.save(single, trap)
    path.write_bytes(single.getvalue())
    with pytest.raises(IncompleteError) as caught:
        read_trace(path)
    assert_message(caught, path, code=ExitCode.INCOMPLETE)
    assert not marker.exists()


@pytest.mark.parametrize(
    "method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_damage_is_noticed_whatever_compression(path: Path, method: int) -> None:
    """A changed byte is detected or changes nothing, whatever the compression."""
    trace, random = random_trace(1, (1, 2), rows=4), np.random.default_rng(method)
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, array in arrays_of(trace).items():
            file = io.BytesIO()
            np.save(file, array)
            archive.writestr(f"{name}.npy", file.getvalue())
    content, refused = path.read_bytes(), 0
    for position in random.integers(0, len(content), 300):
        path.write_bytes(
            content[:position] + bytes([content[position] ^ 0xFF]) + content[position + 1 :]
        )
        try:
            assert_same_trace(read_trace(path), trace)
        except IncompleteError:
            refused += 1
    assert refused > 50


@settings(deadline=None, max_examples=50)
@given(st.lists(st.lists(st.integers(-3, 3), min_size=3, max_size=3), min_size=1, max_size=5))
def test_prediction_is_first_largest_logit(rows: list[list[int]]) -> None:
    """The prediction is the first largest logit."""
    predicted = predictions(np.array([rows, rows[::-1]], dtype=np.float32))
    assert predicted[0].tolist() == [row.index(max(row)) for row in rows]
    assert predicted[1].tolist() == [row.index(max(row)) for row in rows[::-1]]


def test_regression_prediction_is_the_value() -> None:
    """The prediction of a regression is the value itself."""
    trace = random_trace(1, (1, 2), rows=5, classes=1)
    np.testing.assert_array_equal(trace.predictions(), trace.logits[:, :, 0])


def npy(shape: str, content: bytes = b"") -> bytes:
    """A .npy file of float64 whose header claims a shape."""
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + content


@pytest.mark.parametrize("shape", ["(10**15,)", "(1000000000000000,)", "(-5,)", "(2, 3)"])
def test_overstated_array_size_is_refused(shape: str, path: Path) -> None:
    """An array that claims more than it holds is refused."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("logits.npy", npy(shape))
    with pytest.raises(IncompleteError) as caught:
        read_trace(path)
    assert_message(caught, path, code=ExitCode.INCOMPLETE)


def test_zip_bomb_is_refused_unread(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small archive that unpacks to a large one is refused before it is unpacked."""
    monkeypatch.setattr(arrays, "MAX_BYTES", 10_000)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("logits.npy", npy("(5000,)", bytes(40_000)))
    assert path.stat().st_size < 1_000
    with pytest.raises(IncompleteError) as caught:
        read_trace(path)
    unpacked, limit = figures(
        assert_message(caught, path, code=ExitCode.INCOMPLETE).partition(str(path))[2]
    )
    assert (40_000 < unpacked < 41_000, limit) == (True, 10_000)
