"""Transcripts of command lines, without what differs between machines."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import torch
from support.command_line import RunCli
from syrupy.extensions.single_file import SingleFileSnapshotExtension, WriteMode

from harness.methods.compute import device_name


def _rounded(number: re.Match[str]) -> str:
    return f"{float(number[0]):.2f}"


def _narrow(row: re.Match[str]) -> str:
    return re.sub("-{2,}", "--", re.sub(" {2,}", " ", row[0]))


VARYING: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"\d+\.\d{5,}", _rounded),  # the last bits of a sum
    (r"\b[0-9a-f]{16}\b", "0123456789abcdef"),  # ids of runs, keys of stages
    (r"\b(?=[a-f]*[0-9])[0-9a-f]{8}\b", "01234567"),  # first digits of the ids of runs
    (r"\d+\.\d+(?= (?:ms|MB)\b)", "#"),
    (r"\b\d+(?= s\b)", "#"),
    (r"(?m)^\|.*$", _narrow),  # tables whose figures were replaced
    (re.escape(device_name(torch.device("cpu"))), "A processor"),
    (r"Expecting property name .*?\(char \d+\)", "(the json library's words)"),
    (r"File is not a zip file", "(the zipfile library's words)"),
)
"""Pattern -> its replacement."""

TRAINED = ((r"-?\d+\.\d+", "#"),)
"""Replacements for figures of a model trained here, which differ between processors."""


class TextFile(SingleFileSnapshotExtension):
    """A snapshot that is a text file."""

    _write_mode = WriteMode.TEXT
    file_extension = "txt"


class Transcript:
    """Command lines run in the current folder, with their output."""

    def __init__(self, run_cli: RunCli, run_id: str = "") -> None:
        """Use `run_id` for RUN_ID in command lines."""
        self.run_cli, self.run_id, self.parts = run_cli, run_id, list[str]()

    def run(self, *lines: str, trained: bool = False) -> None:
        """Run command lines, typed as in a shell without the program's name.

        `trained` says that their figures are those of a model trained here.
        """
        for line in lines:
            result = self.run_cli(*shlex.split(line.replace("RUN_ID", self.run_id)))
            self._add(
                f"$ harness {line}".rstrip(),
                f"{result.out}{result.err}exit code {result.code}",
                trained,
            )

    def show(self, path: str, trained: bool = False) -> None:
        """Show a text file that a command wrote or will read."""
        self._add(f"$ cat {path}", Path(path).read_text(encoding="utf-8").rstrip("\n"), trained)

    def _add(self, typed: str, output: str, trained: bool) -> None:
        for pattern, replacement in (*(TRAINED if trained else ()), *VARYING):
            output = re.sub(pattern, replacement, output)
        self.parts.append(f"{typed}\n{output}\n")

    @property
    def text(self) -> str:
        return "\n".join(self.parts)
