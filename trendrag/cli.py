"""The ``trendrag`` command. Its subcommands live in the other packages and are found through entry points.

Knows how a command ends: an error of ours is one line on stderr and exit code 1, wrong usage 2, Ctrl-C 130.
"""

import os
import sys
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

import click

from trendrag.errors import RequestError, TrendragError

if TYPE_CHECKING:
    from pydantic import ValidationError


@cache
def _commands() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group="trendrag.commands")}


def command(name: str) -> click.Command:
    """A subcommand by its name; importing it is what calling it costs."""
    loaded = _commands()[name].load()
    assert isinstance(loaded, click.Command)  # noqa: S101  (our own entry points)
    return loaded


def option_error(error: "ValidationError") -> RequestError:
    """What is wrong with an option, where a type of the kernel refused its value."""
    fault = error.errors(include_url=False)[0]
    return RequestError(f"--{str(fault['loc'][0]).replace('_', '-')}: {fault['msg']}")


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  (click's signature)
        return sorted(_commands())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  (as above)
        return command(cmd_name) if cmd_name in _commands() else None


@click.command(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Begin with `trendrag demo`. Settings are environment variables (TRENDRAG_MODEL__PROVIDER=openai …): the "
    "README lists them.",
)
@click.version_option(package_name="trendrag", prog_name="trendrag")
def trendrag() -> None:
    """Captions for a photo that weave in what people talk about right now, and say where each trend came from."""


def main() -> None:
    """Runs the command line and exits."""
    try:
        code = trendrag(standalone_mode=False)  # what a command passed to ctx.exit, else what it returned
        sys.exit(code if isinstance(code, int) else 0)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except TrendragError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Stopped.", err=True)
        sys.exit(130)
    except BrokenPipeError:
        # `trendrag … | head` is no error; Python would complain once more when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
