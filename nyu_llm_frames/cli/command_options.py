"""Options that several commands share, read once and handed on by value.

Comes in: the arguments of a command line. Goes out: keyword arguments as `df.llm.batch` takes them,
and a gateway. A key is never an option: it would appear in the shell's history and in `ps`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click

from nyu_llm_frames._gateway.gateway import Gateway
from nyu_llm_frames._shared.local_path import local_path
from nyu_llm_frames.errors import ConfigurationError

F = TypeVar("F", bound=Callable[..., Any])


class _Path(click.Path):
    """A local path; of a URL, click itself would report only that it does not exist."""

    def convert(self, value: Any, param: Any, ctx: click.Context | None) -> Any:
        try:
            local_path(value, "The path")
        except ConfigurationError as e:
            self.fail(str(e), param, ctx)
        if not self.file_okay and Path(value).is_file():
            from nyu_llm_frames._tables.text_file import with_suffix

            beside = with_suffix(Path(value), ".llm")
            hint = f"; the sidecar beside it is {beside}" if beside.is_dir() else ""
            self.fail(f"{value} is a file, not a folder{hint}.", param, ctx)
        return super().convert(value, param, ctx)


FILE = _Path(exists=True, dir_okay=False, path_type=Path)
DATA = _Path(exists=True, path_type=Path)
ANY = _Path(path_type=Path)
OUT = _Path(dir_okay=False, path_type=Path)
FOLDER = _Path(file_okay=False, path_type=Path)

_LOCAL = ("upstream", "answers", "gguf", "data")
_GROUPS = (
    "Input", "Prompt", "Model", "New columns", "Run", "Embedded gateway", "Gateway", "Options"
)  # fmt: skip


class Grouped(click.Command):
    """A command whose help shows its options in groups."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx) if isinstance(param, click.Option) else None
            if record is not None:
                groups.setdefault(getattr(param, "group", "Options"), []).append(record)
        for title in sorted(groups, key=_GROUPS.index):
            with formatter.section(title):
                formatter.write_dl(groups[title])


class _Option(click.Option):
    """An option of a group in the help."""

    def __init__(self, *words: Any, group: str, **more: Any) -> None:
        super().__init__(*words, **more)
        self.group = group


def _all(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


def _in(group: str) -> Callable[..., Callable[[F], F]]:
    """Return what `click.option` is, for options of a group."""
    return partial(click.option, cls=_Option, group=group)


_gateway, _prompt, _model = _in("Gateway"), _in("Prompt"), _in("Model")
_columns, run_option = _in("New columns"), _in("Run")


def _embedded(option: Callable[..., Callable[[F], F]]) -> Callable[[F], F]:
    return _all(
        option("--upstream", metavar="URL", help="An OpenAI-compatible server that answers."),
        option("--answers", type=click.Choice(["echo"]), help="No model: repeat the prompt."),
        option("--gguf", type=FILE, help="A model file of your own."),
        option("--data", type=FOLDER, help="Its job folder. Default: the user's data folder."),
    )


local = _embedded(_in("Embedded gateway"))
data = _all(
    click.argument("input", nargs=-1, required=True, type=DATA),
    _in("Input")("--sep", metavar="CHAR", help="Separates the columns of a CSV file."),
    _in("Input")("--sheet", metavar="NAME", help="Sheet of an Excel file; else the first."),
)
as_json = click.option("--json", "json_", is_flag=True, help="Print JSON for scripts.")

gateway = _all(
    _gateway(
        "--gateway",
        "gateway_",
        type=click.Choice(["nyu", "local"]),
        help="local: the embedded gateway, which needs no key, with the options of `demo`. "
        "Default: from the environment.",
    ),
    _gateway("--base-url", help="Default: PORTKEY_BASE_URL, else NYU's gateway."),
    _gateway("--provider", help="Default: PORTKEY_PROVIDER, else @vertexai."),
    _gateway("--bucket", help="Default: NYU_LLM_BUCKET."),
    _embedded(partial(_gateway, hidden=True)),
)

template = _all(
    _prompt("--template", type=FILE, help="File with the Jinja template of the prompt."),
    _prompt("--prompt", metavar="TEXT", help="The template itself, in place of a file."),
    _prompt("--system", metavar="TEXT", help="Template of the system message."),
    _prompt("--system-file", type=FILE, help="The same, in a file."),
    _prompt("--images", multiple=True, metavar="COLUMN", help="Column with images; repeatable."),
    _prompt(
        "--missing",
        type=click.Choice(["error", "skip"]),
        default="error",
        help="What to do with rows with missing values used in the prompt.",
    ),
    _model(
        "--schema",
        type=FILE,
        help='JSON file: {"kind": ["a", "b"], "n": {"type": "integer"}}, or a JSON schema.',
    ),
    _model("--max-tokens", type=int, help="Longest answer, in tokens."),
    _model("--temperature", type=float),
    _model("--top-p", type=float),
    _model("--seed", type=int),
    _model("--stop", multiple=True, help="Text that ends the answer; repeatable."),
    _model("--thinking", help="off, low, medium, high, or a number of tokens."),
    _model("--param", multiple=True, metavar="NAME=JSON", help="Extra body field; repeatable."),
)

columns = _all(
    _columns("--output", default="response", show_default=True, help="Name of the new column."),
    _columns("--prefix", default="", help="Prefix for the names of a schema's columns."),
    _columns(
        "--if-exists",
        type=click.Choice(["error", "replace", "fill"]),
        default="error",
        help="If INPUT has these columns: fill sends only rows without a good answer.",
    ),
    _columns("--details", is_flag=True, help="Add status, tokens, cost, model, custom_id."),
)

model = _model("--model", required=True, help="Name, also as @provider/name.")
any_model = _model("--model", default="model", help="Only changes the request ids.")
sidecar_option = run_option(
    "--sidecar", type=FOLDER, help="Run folder. Default: <output's name>.llm beside the output."
)
out = run_option("--out", type=OUT, help="Output of the later batch, beside its sidecar.")
sidecar = _all(
    click.argument("sidecar", type=FOLDER, default=Path("llm_sidecar")),
    click.option("--run", help="Only the batch jobs of this run."),
)
max_cost = run_option("--max-cost", type=float, metavar="USD", help="Refuse to pay more.")
timeout = run_option("--timeout", type=float, metavar="SECONDS", help="Longest wait.")
retries = run_option(
    "--retries", type=int, default=1, show_default=True, help="Further attempts after a failure."
)


def table(model: Callable[[F], F]) -> Callable[[F], F]:
    """Add what every command on a table takes."""
    return _all(data, model, template, columns)


def take_gateway(given: dict[str, Any]) -> Gateway | None:
    """Take the gateway's options out of `given`; None when none was given."""
    kind = given.pop("gateway_")
    remote = {name: given.pop(name) for name in ("base_url", "provider", "bucket")}
    local = {name: given.pop(name) for name in _LOCAL}
    if kind == "local":
        wrong = [name for name, value in remote.items() if value is not None]
        if wrong:
            raise click.UsageError(f"--{wrong[0].replace('_', '-')} has no meaning with local.")
        local["model"] = local.pop("gguf")
        return Gateway.local(**{k: v for k, v in local.items() if v is not None})
    wrong = [name for name, value in local.items() if value is not None]
    if wrong:
        raise click.UsageError(f"--{wrong[0]} needs --gateway local.")
    if kind is None and not any(remote.values()):
        return None
    return Gateway(**remote)


def take_data(given: dict[str, Any]) -> tuple[Path | list[Path], dict[str, Any]]:
    """Take the input out of `given`: one path or several, and how they are read."""
    paths = list(given.pop("input"))
    reading = {"sep": given.pop("sep"), "sheet": given.pop("sheet")}
    return paths[0] if len(paths) == 1 else paths, reading


def take_arguments(given: dict[str, Any]) -> dict[str, Any]:
    """Turn the options of a prompt into the arguments of a call; takes them out of `given`."""
    text, file = given.pop("prompt"), given.pop("template")
    if (text is None) == (file is None):
        raise click.UsageError("Give --template FILE or --prompt TEXT.")
    system, system_file = given.pop("system"), given.pop("system_file")
    if system is not None and system_file is not None:
        raise click.UsageError("Give --system or --system-file, not both.")
    thinking = given.pop("thinking")
    arguments: dict[str, Any] = {
        "template": text if text is not None else file,
        "system": system if system_file is None else system_file,
        "schema": _json_file(given.pop("schema")),
        "images": list(given.pop("images")) or None,
        "stop": list(given.pop("stop")) or None,
        "thinking": int(thinking) if thinking and thinking.isdecimal() else thinking,
        "params": _params(given.pop("param")),
        "gateway": take_gateway(given),
    }
    for name in ("missing", "max_tokens", "temperature", "top_p", "seed"):
        arguments[name] = given.pop(name)
    for name in ("output", "prefix", "if_exists", "details", "model", "sidecar"):
        if name in given:
            arguments[name] = given.pop(name)
    return {name: value for name, value in arguments.items() if value is not None}


def take_out(given: dict[str, Any], path: Path | list[Path], *, required: bool = False) -> None:
    """Turn the output of the later batch into its sidecar, in `given`."""
    from nyu_llm_frames._api.files import beside_output

    out = given.pop("out")
    if out is not None and given["sidecar"] is None:
        first = path[0] if isinstance(path, list) else path
        given["sidecar"] = beside_output(out.absolute(), first, given["if_exists"])
    if required and given["sidecar"] is None:
        raise click.UsageError("Give the --out of the later batch, or its --sidecar.")


def _json_file(path: Path | None) -> Any:
    if path is None:
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise click.UsageError(f"{path} cannot be read: {e.strerror or e}.") from None
    except ValueError as e:
        raise click.UsageError(f"{path} is not JSON: {e}.") from None


def _params(given: tuple[str, ...]) -> dict[str, Any] | None:
    out = {}
    for word in given:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise click.UsageError(f"--param takes NAME=JSON, not {word!r}.")
        try:
            out[name] = json.loads(value)
        except ValueError:
            out[name] = value  # a plain word is a string
    return out or None
