"""Transcripts of command lines: what a person would see, without what differs between machines."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import torch
from support.command_line import Say
from syrupy.extensions.single_file import SingleFileSnapshotExtension, WriteMode

from harness.methods.compute import device_name


def _rounded(number: re.Match[str]) -> str:
    return f"{float(number[0]):.2f}"


def _narrow(row: re.Match[str]) -> str:
    return re.sub("-{2,}", "--", re.sub(" {2,}", " ", row[0]))


VARYING: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"\d+\.\d{5,}", _rounded),  # the last bits of a sum
    (r"\b[0-9a-f]{16}\b", "0123456789abcdef"),  # ids of runs, keys of stages
    (r"\d+\.\d+(?= (?:ms|MB)\b)", "#"),
    (r"\b\d+(?= s\b)", "#"),
    (r"(?m)^\|.*$", _narrow),  # tables whose figures were replaced
    (re.escape(device_name(torch.device("cpu"))), "A processor"),
    (r"Expecting property name .*?\(char \d+\)", "(the json library's words)"),
    (r"File is not a zip file", "(the zipfile library's words)"),
)
"""Pattern -> what stands in its place."""

FITTED = ((r"-?\d+\.\d+", "#"),)
"""The same for figures of a model that was trained here: another processor gives other ones."""


class TextFile(SingleFileSnapshotExtension):
    """A snapshot that is a text file."""

    _write_mode = WriteMode.TEXT
    file_extension = "txt"


class Transcript:
    """Runs command lines in the current folder and keeps what they say."""

    def __init__(self, say: Say, fitted: str = "") -> None:
        """`fitted`: what RUN_ID stands for in a command line."""
        self.say, self.fitted, self.parts = say, fitted, list[str]()

    def run(self, *lines: str, trained: bool = False) -> None:
        """Command lines without the program's name, as they are typed in a shell. `trained`: their
        figures are those of a model that was trained here."""
        for line in lines:
            answer = self.say(*shlex.split(line.replace("RUN_ID", self.fitted)))
            self._add(
                f"$ harness {line}".rstrip(),
                f"{answer.out}{answer.err}exit code {answer.code}",
                trained,
            )

    def show(self, path: str, trained: bool = False) -> None:
        """A text file that a command wrote or is going to read."""
        self._add(f"$ cat {path}", Path(path).read_text(encoding="utf-8").rstrip("\n"), trained)

    def _add(self, typed: str, said: str, trained: bool) -> None:
        for pattern, instead in (*(FITTED if trained else ()), *VARYING):
            said = re.sub(pattern, instead, said)
        self.parts.append(f"{typed}\n{said}\n")

    @property
    def text(self) -> str:
        return "\n".join(self.parts)
