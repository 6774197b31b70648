"""`miq`: the nouns put together, and the one place where errors become a line and an exit code.

Only the noun on the command line is imported, so that `miq --help` does not wait for a database library.

    exit code 0  done        1  tried, and it failed        2  the input, or what it names, cannot be used
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from typing import Annotated, Any

import typer

from miq import __version__, log
from miq.errors import MiqError, ProviderError, UsageError

NOUNS = {
    "status": "Servers, workers and how the last ones ended.",
    "queue": "The queue: what waits, what nobody takes; put, show, retry, purge.",
    "tasks": "What somebody waits for: list, show, wait, remove.",
    "schedules": "What is called by the clock: list, add, enable, disable, remove.",
    "ems": "Managers: add, edit, list, show, check, refresh, remove.",
    "sql": "Run one of the operators' queries.",
    "db": "The database: address, migrations, state.",
    "server": "The server of this MIQ_HOME.",
    "demo": "A simulated Amazon account, and a server that follows it.",
}


def build(arguments: list[str]) -> typer.Typer:
    """The command line, with the nouns that `arguments` name loaded and the others as their one line of help."""
    app = typer.Typer(
        name="miq",
        help="Look after a hybrid-infrastructure appliance.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    everything = "_MIQ_COMPLETE" in os.environ
    for noun, about in NOUNS.items():
        if everything or noun in arguments:
            _load(app, noun, about)
        else:
            app.command(noun, help=about)(_unloaded)
    return app


def _load(app: typer.Typer, noun: str, about: str) -> None:
    command: Any = importlib.import_module(f"miq.cli.{noun}").command
    if isinstance(command, typer.Typer):
        app.add_typer(command, name=noun, help=about, no_args_is_help=not command.info.invoke_without_command)
    else:
        app.command(noun, help=about)(command)


def _unloaded() -> None:
    raise AssertionError("only shown in the help")


def _version(asked: bool) -> None:
    if asked:
        print(f"miq {__version__}")
        raise typer.Exit


def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error comes from.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options before the noun."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit code. An error is one line on standard error; `--debug`, anywhere, shows more."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"]
    if not debug:
        log.hold_back()
    try:
        code = build(given)(args=given, prog_name="miq", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except BrokenPipeError:
        # Whoever read us has enough; do not fail again when Python flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return _end("stopped", 130)
    except typer.Abort:
        return _end("nothing done", 1)
    except Exception as error:
        if debug:
            traceback.print_exc()
        return _end(_line(error), _code(error))


def _end(line: str, code: int) -> int:
    if line:
        print(f"miq: {line}", file=sys.stderr)
    return code


def _line(error: Exception) -> str:
    """The error in one line. A library's error is named by its class, for it does not know what the user wanted."""
    if isinstance(error, typer.TyperException):
        return " ".join(error.format_message().split())
    text = " ".join(str(error).split("\n[SQL:")[0].split())
    if isinstance(error, MiqError):
        return text or " ".join((type(error).__doc__ or "").split())
    return f"{type(error).__name__}: {text} (`miq --debug ...` shows where)"


def _code(error: Exception) -> int:
    if isinstance(error, typer.TyperException):
        return error.exit_code
    return 2 if isinstance(error, UsageError | ProviderError) else 1
