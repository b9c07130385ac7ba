"""`python -m harness`, and the one place where errors become a line and an exit code."""

import errno
import os
import sys
import traceback

import click

from harness.cli.app import cli
from harness.cli.options import PREFIX, variables
from harness.errors import ExitCode, HarnessError, close_to


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the process's exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    if not {"-q", "--quiet"} & set(words):
        _name_strange_variables()
    try:
        result = cli.main(args=words, prog_name="harness", standalone_mode=False)
        return int(result) if isinstance(result, int) else ExitCode.OK
    except click.exceptions.Abort:
        return _say("interrupted; run the same command again to go on", ExitCode.INTERRUPTED)
    except KeyboardInterrupt:
        return _say("interrupted; run the same command again to go on", ExitCode.INTERRUPTED)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return ExitCode.USER
    except click.ClickException as error:
        return _say(error.format_message(), ExitCode.USER)
    except HarnessError as error:
        return _say(str(error), error.exit_code)
    except SystemExit:  # click's answer to a reader that has closed the pipe
        return ExitCode.OK
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        return _say(
            f"{error.filename or 'disk'}: {error.strerror}",
            ExitCode.INCOMPLETE if full else ExitCode.USER,
        )
    except Exception as error:  # a bug of ours: one line, or the traceback for those who asked
        if {"-v", "--verbose"} & set(words):
            traceback.print_exc()
        return _say(
            f"internal error: {type(error).__name__}: {error} (-v shows where)", ExitCode.BUG
        )


def _name_strange_variables() -> None:
    """A misspelt variable would go unnoticed."""
    given = {name for name in os.environ if name.startswith(f"{PREFIX}_")}
    if not given:
        return
    assert isinstance(cli, click.Group)
    known = variables(cli)
    for name in sorted(given - known):
        hint = "".join(f": did you mean {near}?" for near in close_to(name, known)[:1])
        click.echo(f"harness: warning: {name} is no option's variable{hint}", err=True)


def _say(line: str, code: ExitCode) -> int:
    click.echo(f"harness: {' '.join(line.split())}", err=True)
    return code


def entry() -> None:
    """The console script."""
    sys.exit(main())


if __name__ == "__main__":
    entry()
