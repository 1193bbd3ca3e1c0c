"""``trendrag batch``."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from serving.commands import LENGTHS, PLATFORMS

if TYPE_CHECKING:
    from serving.batch.run import Mode, Options
    from trendrag.settings import Settings

GPU_NAMES = ("A6000", "A100", "H100")  # serving.batch.plan.GPUS; a test keeps them equal
PROBE_ROWS = 16


@click.command()
@click.argument("source", metavar="INPUT", required=False)
@click.argument("output", required=False)
@click.option("--limit", type=click.IntRange(1), help="At most so many of the selected records.")
@click.option("--offset", type=click.IntRange(0), default=0, help="Leave out so many of them at the start.")
@click.option(
    "--all/--only-synthetic",
    "everything",
    default=False,
    help="All records, or those whose description nobody wrote.  [default: only synthetic]",
)
@click.option("--synthetic", metavar="REGEX", help="What such a description holds.  [default: batch.synthetic]")
@click.option("--description-field", default="description", show_default=True, help="Where descriptions are.")
@click.option(
    "--images",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Where image paths begin, and may not leave.  [default: INPUT's folder]",
)
@click.option("--image-field", help="Field with paths or URLs.  [default: image_path, else image_url]")
@click.option("--id-field", default="id", show_default=True, help="Field that names a record.")
@click.option("--note-field", help="Field whose text the model is told as the photographer's note.  [default: none]")
@click.option("--prompt", default="caption", show_default=True, help="caption, alt, describe, or a file with your own.")
@click.option("--platform", type=click.Choice(PLATFORMS), default="generic", show_default=True, help="Where they go.")
@click.option("--language", default="en", show_default=True, help="Language of the captions (BCP 47).")
@click.option("--length", type=click.Choice(LENGTHS), help="How long roughly.")
@click.option("--max-chars", type=click.IntRange(40, 5000), help="Longest caption.  [default: the platform's]")
@click.option("--tone", help="How they should sound: playful, dry, poetic …")
@click.option("--with-trends", is_flag=True, help="Weave in trends that fit, and name them in vlm_trends.")
@click.option("--concurrency", type=click.IntRange(1, 4096), help="Captions at once.  [default: as the server can]")
@click.option("--server", "servers", multiple=True, metavar="URL", help="A server in place of the set; repeatable.")
@click.option("--resume", "mode", flag_value="resume", help="Go on with an output that is there, or begin one.")
@click.option("--overwrite", "mode", flag_value="overwrite", help="Begin anew over an output that is there.")
@click.option("--retry-failed", "mode", flag_value="retry", help="Go on, and try again what failed.")
@click.option(
    "--patience", type=click.FloatRange(0), default=600.0, show_default=True, help="Seconds a server may be away."
)
@click.option("--engine", type=click.Choice(("local", "ray")), default="local", show_default=True, help="Who works.")
@click.option("--ray-address", help="A Ray cluster's, for --engine ray.  [default: a Ray of its own, here]")
@click.option("--dry-run", is_flag=True, help="Count, try some rows, estimate time and cost; write nothing.")
@click.option("--plan", "planned", type=click.IntRange(1), metavar="N", help="Time and cost for N images, by GPU.")
@click.option("--gpu", type=click.Choice(GPU_NAMES), help="With --plan: this one only.")
@click.option("--gpus", type=click.IntRange(1), default=1, help="With --plan: how many.")
@click.option("--gpu-price", type=click.FloatRange(0), help="With --plan: of one for an hour.")
@click.option("--rate", type=click.FloatRange(0, min_open=True), help="With --plan: images a second that one does.")
@click.pass_context
def batch(
    ctx: click.Context,
    source: str | None,
    output: str | None,
    limit: int | None,
    offset: int,
    everything: bool,
    synthetic: str | None,
    description_field: str,
    images: Path | None,
    image_field: str | None,
    id_field: str,
    note_field: str | None,
    prompt: str,
    platform: str,
    language: str,
    length: str | None,
    max_chars: int | None,
    tone: str | None,
    with_trends: bool,
    concurrency: int | None,
    servers: tuple[str, ...],
    mode: "Mode | None",
    patience: float,
    engine: str,
    ray_address: str | None,
    dry_run: bool,
    planned: int | None,
    gpu: str | None,
    gpus: int,
    gpu_price: float | None,
    rate: float | None,
) -> None:
    """Write captions for the records of INPUT into OUTPUT: all of them, each once, whatever happens on the way.

    INPUT has records as lines of JSON (.jsonl, also .gz or .zst) or as Parquet, here or at a URL such as
    s3://bucket/photos.jsonl.zst; or it is a folder of images. OUTPUT has those that were selected, in the same order,
    with every field that they came with and vlm_caption, vlm_captioned_at and vlm_model. What failed is in
    OUTPUT.errors.jsonl, with the reason.

    \b
        trendrag batch archive.jsonl captions.jsonl --limit 100
        trendrag batch archive.jsonl captions.jsonl --resume          # after Ctrl-C, a crash, a power cut
        trendrag batch archive.jsonl captions.jsonl --retry-failed    # a day later, the 404s again
        trendrag batch photos/ captions.parquet --prompt alt
        trendrag batch archive.jsonl captions.jsonl --dry-run         # how long, and for how much
        trendrag batch --plan 1000000 --gpu A100 --gpus 4

    Ends with 0 only if every selected record has a caption. docs/batch.md has the rest.
    """
    if planned is not None:
        _show_plan(planned, gpu, gpus, gpu_price, rate)
        return
    if source is None or (output is None and not dry_run):
        raise click.UsageError("INPUT and OUTPUT are needed.")
    from serving.batch.captions import Wishes
    from serving.batch.run import Options
    from trendrag.logs import set_up_logging
    from trendrag.settings import load_settings

    settings = load_settings()
    set_up_logging(settings.log, settings)
    options = Options(
        input=source,
        output=output or "",
        wishes=Wishes(prompt, with_trends, platform, language, length, tone, max_chars),
        everything=everything,
        description_field=description_field,
        synthetic=synthetic,
        limit=limit,
        offset=offset,
        images=images,
        image_field=image_field,
        id_field=id_field,
        note_field=note_field,
        concurrency=concurrency,
        servers=servers,
        mode=mode or "new",
        patience_s=patience,
        engine="ray" if engine == "ray" else "local",
        ray_address=ray_address,
    )
    ctx.exit(_dry_run(options, settings) if dry_run else _run(options, settings))


def _run(options: "Options", settings: "Settings") -> int:
    import asyncio

    from rich.console import Console

    from serving.batch.display import Display, summarise
    from serving.batch.run import Summary, run

    async def watched() -> Summary:
        display = Display(Console(stderr=True, highlight=False), settings.batch)
        try:
            return await run(options, settings, display.begin)
        finally:
            await display.end()

    try:
        summary = asyncio.run(watched())
    except KeyboardInterrupt:
        click.echo("What is finished is kept. Go on with --resume.", err=True)
        raise
    summarise(summary, settings.batch)
    return 1 if summary.counts["failed"] else 0


def _dry_run(options: "Options", settings: "Settings") -> int:
    import asyncio

    from serving.batch.display import cost
    from serving.batch.plan import duration
    from serving.batch.run import probe
    from trendrag.types import Usage

    found = asyncio.run(probe(options, settings, PROBE_ROWS))
    click.echo(f"{found.lines:,} lines, {found.selected:,} records selected, {found.malformed:,} lines malformed")
    if not found.tried:
        return 0
    written = found.tried - found.failed
    rate = f" ({written / found.seconds:.2g} a second)" if written else ""
    click.echo(f"{written} of {found.tried} tried have a caption, after {found.seconds:.1f} s{rate}")
    for reason in found.reasons:
        click.echo(f"  failed: {reason}")
    if written and found.estimate_s is not None:
        click.echo(f"About {duration(found.estimate_s / 3600)} for all, at this pace; a long run finds a better one.")
        scale = found.selected / written
        usage = Usage(
            prompt_tokens=round(found.usage.prompt_tokens * scale),
            completion_tokens=round(found.usage.completion_tokens * scale),
        )
        spent = cost(usage, settings.batch)
        priced = f", cost {spent:.2f}" if spent is not None else ""
        click.echo(f"About {usage.prompt_tokens:,} tokens read, {usage.completion_tokens:,} written{priced}")
    return 0 if written else 1


def _show_plan(rows: int, gpu: str | None, gpus: int, price: float | None, rate: float | None) -> None:
    from rich.console import Console
    from rich.table import Table

    from serving.batch.plan import ASSUMPTIONS, GPUS, duration, plan

    table = Table("GPU", "images/s", "time", "cost", title=f"{rows:,} images", title_justify="left", box=None)
    for each in GPUS:
        if gpu not in (None, each.name):
            continue
        made = plan(rows, each, gpus=gpus, price=price, rate=rate)
        rates, hours, costs = (dict.fromkeys(pair) for pair in (made.rate, made.hours, made.cost))
        table.add_row(
            f"{gpus} × {each.name}",
            "–".join(f"{value:.1f}" for value in rates),
            "–".join(duration(value) for value in hours),
            "–".join(f"{value:,.0f}" if value >= 10 else f"{value:.2f}" for value in costs),
        )
    Console(highlight=False).print(table)
    for line in ASSUMPTIONS:
        click.echo(f"- {line}")
