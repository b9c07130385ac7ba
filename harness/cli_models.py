"""The command line's words about models that are fitted already. Like cli.py it imports inside functions."""

from __future__ import annotations

import click

from harness.cli_options import together

checkpoint_options = together(
    click.option("--checkpoint", metavar="FOLDER|HUB_ID",
                 help="Measure a fine-tuned classifier, which is its own backbone; nothing is trained."),
    click.option("--labels", metavar="A,B", help="Its classes in its own order, where its config.json does not name them."),
)  # fmt: skip
