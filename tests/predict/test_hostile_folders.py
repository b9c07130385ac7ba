"""Folders of exported models that are damaged, hostile or old."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.command_line import RunCli
from support.synthetic import TouchesAFile, everything_under, one_line

from harness.errors import HarnessError
from harness.predict.exported import Exported, load


def change(folder: Path, name: str, path: list[str], value: object) -> None:
    content = json.loads((folder / name).read_text())
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    (folder / name).write_text(json.dumps(content))


HOSTILE: list[tuple[str, list[str], object]] = [
    ("config.json", ["shape", "hidden"], 10**12),
    ("config.json", ["shape", "vocabulary"], 10**15),
    ("config.json", ["shape", "vocabulary"], 2**80),
    ("config.json", ["shape", "hidden"], -8),
    ("config.json", ["shape", "hidden"], 0),
    ("config.json", ["shape", "heads"], [4] * 5_000),
    ("config.json", ["shape", "heads"], []),
    ("config.json", ["shape", "ffn"], [512]),
    ("config.json", ["shape", "activation"], "__import__('os')"),
    ("config.json", ["classes"], 3),
    ("config.json", ["exits"], [None, None, None, None]),
    ("config.json", ["more"], 1),
    ("config.json", ["shape", "head_size"], 1.5),
    ("harness.json", ["labels"], ["a", "b", "c"]),
    ("harness.json", ["labels"], ["a\u001b[2J", "b"]),
    ("harness.json", ["form"], 2),
    ("harness.json", ["max_length"], 10**9),
    ("harness.json", ["rule", "policy"], "os.system"),
    ("harness.json", ["rule", "threshold"], None),
    ("harness.json", ["rule", "threshold"], -1.0),
    ("harness.json", ["shape", "vocabulary"], 3),
]


@pytest.mark.parametrize(
    ("name", "path", "value"),
    HOSTILE,
    ids=[f"{'.'.join(path)}={str(value)[:20]}" for _, path, value in HOSTILE],
)
def test_wrong_config_is_one_line(
    export: Callable[..., Path], name: str, path: list[str], value: object
) -> None:
    """An invalid configuration gives a one-line error."""
    folder = export("deebert")
    change(folder, name, path, value)
    with pytest.raises(HarnessError) as caught:
        load(folder)
    assert one_line(caught)


def test_damaged_files_run_nothing(export: Callable[..., Path], tmp_path: Path) -> None:
    """Damaged, large and missing files give a one-line error, and no code is run."""
    folder = export("deebert")
    intact = {name: (folder / name).read_bytes() for name in everything_under(folder)}
    tensors = load_file(folder / "model.safetensors")
    torch.save(TouchesAFile(tmp_path / "touched"), tmp_path / "pickle")
    save_file({**tensors, "more": torch.zeros(1)}, tmp_path / "more")
    save_file(
        {name: tensor.fill_(float("nan")) for name, tensor in tensors.items()}, tmp_path / "nan"
    )
    wrong = [
        *(
            ("model.safetensors", (tmp_path / name).read_bytes())
            for name in ("pickle", "more", "nan")
        ),
        ("model.safetensors", intact["model.safetensors"][:-10]),
        ("tokenizer.json", b"{}"),
        ("harness.json", b"[" * 100_000),
        ("config.json", b" " * 2**21),
        *((name, None) for name in ("config.json", "model.safetensors", "tokenizer.json")),
    ]
    for name, content in wrong:
        (folder / name).unlink()
        if content is not None:
            (folder / name).write_bytes(content)
        with pytest.raises(HarnessError) as caught:
            load(folder)
        assert one_line(caught), (name, content)
        (folder / name).write_bytes(intact[name])
    assert not (tmp_path / "touched").exists()
    assert isinstance(load(folder), Exported)


def test_earlier_export_predicts_the_same(run_cli: RunCli) -> None:
    """A model exported by an earlier version predicts the same.

    The folder and its predictions were written at commit c906dcd."""
    folder = Path(__file__).parents[1] / "fixtures" / "exported_small"
    words = ["--file", str(folder / "rows.txt"), "--format", "csv", "--threads", "1"]
    result = run_cli("predict", str(folder), *words)
    with (folder / "predictions.csv").open(encoding="utf-8") as file:
        wanted = list(csv.DictReader(file))
    found = list(csv.DictReader(io.StringIO(result.out)))
    assert [(row["answer"], row["exit"]) for row in found] == [
        (row["answer"], row["exit"]) for row in wanted
    ]
    assert len({row["exit"] for row in wanted}) > 1
    assert [float(row["probability"]) for row in found] == pytest.approx(
        [float(row["probability"]) for row in wanted], abs=1e-4
    )
