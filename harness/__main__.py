"""`python -m harness`: the one place that turns errors into a line and an exit code."""

import errno
import io
import os
import sys
import traceback
import warnings
from contextlib import suppress

import click

from harness.cli.app import cli
from harness.cli.options import PREFIX, environment_variables
from harness.errors import ExitCode, HarnessError, similar_names


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code of the process."""
    argv = sys.argv[1:] if arguments is None else arguments
    if not {"-q", "--quiet"} & set(argv):
        _warn_unknown_variables()
    try:
        result = cli.main(args=argv, prog_name="harness", standalone_mode=False)
        return int(result) if isinstance(result, int) else ExitCode.OK
    except click.exceptions.Abort:
        return _fail("interrupted; run the command again to continue", ExitCode.INTERRUPTED)
    except KeyboardInterrupt:
        return _fail("interrupted; run the command again to continue", ExitCode.INTERRUPTED)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return ExitCode.USER
    except click.ClickException as error:
        return _fail(error.format_message(), ExitCode.USER)
    except HarnessError as error:
        return _fail(str(error), error.exit_code)
    except SystemExit:  # click exits so when the reader has closed the pipe
        return ExitCode.OK
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        return _fail(
            f"{error.filename or 'disk'}: {error.strerror}",
            ExitCode.INCOMPLETE if full else ExitCode.USER,
        )
    except Exception as error:  # a bug: one line, or the traceback with -v
        if {"-v", "--verbose"} & set(argv):
            traceback.print_exc()
        return _fail(
            f"internal error: {type(error).__name__}: {error} (use -v for the traceback)",
            ExitCode.BUG,
        )


def _warn_unknown_variables() -> None:
    """Warn about unknown environment variables: a misspelt one would otherwise go unnoticed."""
    given = {name for name in os.environ if name.startswith(f"{PREFIX}_")}
    if not given:
        return
    assert isinstance(cli, click.Group)
    known = environment_variables(cli)
    for name in sorted(given - known):
        hint = "".join(f": did you mean {similar}?" for similar in similar_names(name, known)[:1])
        click.echo(f"harness: warning: {name} sets no option{hint}", err=True)


def _fail(line: str, code: ExitCode) -> int:
    click.echo(f"harness: {' '.join(line.split())}", err=True)
    return code


def entry() -> None:
    """Run the console script."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # a stream that cannot be changed stays as it is
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")  # a letter that it lacks ends no command
    warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)  # fvcore, when imported
    sys.exit(main())


if __name__ == "__main__":
    entry()
