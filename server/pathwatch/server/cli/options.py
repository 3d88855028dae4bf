"""What all commands share: options from environment and YAML file, JSON lines, errors."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click
from click.core import ParameterSource

F = TypeVar("F", bound=Callable[..., Any])


class Command(click.Command):
    """A command whose options can also come from `PATHWATCH_<OPTION>` and from `--config FILE`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(
            click.Option(
                ["--config"],
                type=click.Path(exists=True, dir_okay=False, path_type=Path),
                is_eager=True,
                expose_value=False,
                callback=_read_config,
                help="YAML file with options by name.",
            )
        )
        for key, option in _options_by_key(self).items():
            option.envvar = f"PATHWATCH_{key.upper()}"


class Assignments(click.Option):
    """A repeatable `--limit NAME=VALUE`; in the file a mapping, `limits`.

    From the command line, or else the environment (separated by blanks), over the file: name by name.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "multiple": True})

    def consume_value(self, ctx: click.Context, opts: Mapping[str, Any]) -> tuple[Any, ParameterSource]:
        value, source = super().consume_value(ctx, opts)
        if source in (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT):
            value = (*(ctx.lookup_default(str(self.name)) or ()), *value)
        return value, source


def _options_by_key(command: click.Command) -> dict[str, click.Option]:
    """`--stop-margin` → `stop_margin`."""
    return {
        param.opts[0].lstrip("-").replace("-", "_"): param
        for param in command.params
        if isinstance(param, click.Option)
    }


def _read_config(ctx: click.Context, param: click.Parameter, path: Path | None) -> None:
    """Options by name, dashes or underscores; a mapping under a command's name is for that command alone."""
    if path is None:
        return
    import yaml

    try:
        content = yaml.safe_load(path.read_text()) or {}
    except (OSError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"{path}: not readable as YAML: {error}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # Its own text quotes the file, secrets and all.
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        raise click.BadParameter(f"{path}{where}: not readable as YAML") from None
    own = content.get(ctx.command.name) or {} if isinstance(content, Mapping) else None
    if not isinstance(content, Mapping) or not isinstance(own, Mapping):
        raise click.BadParameter(f"{path}: wanted a mapping of options to values")
    options = _options_by_key(ctx.command)
    del options["config"]
    mappings = {f"{key}s": key for key, option in options.items() if isinstance(option, Assignments)}
    shared = {
        name: value for name, value in content.items() if not isinstance(value, Mapping) or name in mappings
    }
    values = {str(name).replace("-", "_"): value for name, value in {**shared, **own}.items()}
    for plural in mappings.keys() & values.keys():
        values[mappings[plural]] = _assignments(path, plural, values.pop(plural))
    unknown = sorted(values.keys() - options.keys())
    if unknown:
        raise click.BadParameter(
            f"{path}: `{ctx.command.name}` has no option {', '.join(unknown)}; it has {', '.join(options)}"
        )
    if "token" in values:
        raise click.BadParameter(
            f"{path}: holds a token, for whoever reads the file; "
            "keep it in a file of its own, named by token_file, or in PATHWATCH_TOKEN"
        )
    for name in values.keys() - mappings.values():
        _check_value(path, name, values[name])
    # One left empty is one not given.
    ctx.default_map = {str(options[key].name): value for key, value in values.items() if value is not None}


def _assignments(path: Path, name: str, value: object) -> list[str]:
    if not isinstance(value, Mapping):
        raise click.BadParameter(f"{path}: `{name}` wants a mapping of names to values")
    for key, item in value.items():
        _check_value(path, f"{name}.{key}", item)
    return [f"{key}={item}" for key, item in value.items()]


def _check_value(path: Path, name: str, value: object) -> None:
    """Refuse what only YAML can say: lists of lists, numbers of a thousand digits, text with NULs."""
    for item in value if isinstance(value, list) else [value]:
        if not isinstance(item, str | int | float | date | None):
            raise click.BadParameter(f"{path}: `{name}` wants a value, or a list of values")
        if (isinstance(item, int) and item.bit_length() > 64) or (isinstance(item, str) and "\0" in item):
            raise click.BadParameter(f"{path}: `{name}` has a value that no option takes")


def json_option(function: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")(function)


def print_json(record: Mapping[str, object]) -> None:
    """One JSON line on stdout, flushed so that a pipe sees it at once."""
    click.echo(json.dumps(record, ensure_ascii=False, allow_nan=False))


def fail(message: object) -> NoReturn:
    """Ends the command with one line on stderr and exit code 2."""
    raise click.ClickException(str(message))


def require(extra: str, *modules: str) -> None:
    """Fails with what to install when a module of an optional dependency is missing."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            fail(f"{module} is not installed; this command needs: pip install 'pathwatch[{extra}]'")
