"""The commands by name; each is imported only when it is asked for."""

from importlib import import_module
from keyword import iskeyword
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from .. import __version__

__all__ = ["app", "COMMANDS"]

COMMANDS = ("train", "search", "reproduce", "lower", "import", "export", "show", "eval", "plan", "build", "verify", "run")


class _Commands(TyperGroup):
    """Imports a command's file when it is run, all of them for the list of commands."""

    def __init__(self, **attributes: Any):
        super().__init__(**attributes)
        self.commands: Any = dict.fromkeys(COMMANDS)     # what it suggests for a name mistyped

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        alone = typer.Typer(add_completion=False)
        alone.command(cmd_name)(import_module(f".{cmd_name}{'_' if iskeyword(cmd_name) else ''}", __package__).command)
        return get_command(alone)


app = typer.Typer(cls=_Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
                  context_settings={"help_option_names": ["-h", "--help"]})


def _version(value: bool) -> None:
    if value:
        typer.echo(f"hwq {__version__}")
        raise typer.Exit


@app.callback()
def _root(version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version.")):
    """From a trained, quantized network to a bit-exact small-FPGA bitstream, with open tools only."""
