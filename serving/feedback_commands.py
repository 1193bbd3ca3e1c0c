"""``trendrag feedback``: what users thought of their captions, for the operator."""

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from datetime import datetime
    from typing import TextIO

    from serving.records.training import Format


@click.group()
def feedback() -> None:
    """What users thought of their captions: likes, dislikes, and texts that they put right.

    It is kept in the service database with the history, as long as TRENDRAG_HISTORY__KEEP_DAYS says.
    """


@feedback.command()
@click.option(
    "--format",
    "how",
    type=click.Choice(["sft", "preference"]),
    default="sft",
    show_default=True,
    help="sft: conversations that end well; preference: a prompt with a better and a worse answer.",
)
@click.option(
    "--since",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]),
    help="Only answers with feedback from then on (UTC).",
)
@click.option("--output", type=click.File("w", "utf-8", atomic=True), default="-", help="A file.  [default: stdout]")
def export(how: "Format", since: "datetime | None", output: "TextIO") -> None:
    """Write everybody's feedback as JSONL, in the conversational formats of TRL's trainers.

    Photos are not kept, so they are not in it: each row names its photo by SHA-256.

    \b
        trendrag feedback export --format preference --since 2026-11-01 --output pairs.jsonl
    """
    import asyncio
    from datetime import UTC

    rows = asyncio.run(_export(how, since.replace(tzinfo=UTC) if since else None, output))
    click.echo(f"{rows} rows", err=True)


async def _export(how: "Format", since: "datetime | None", output: "TextIO") -> int:
    from serving.records.training import exported
    from serving.store.database import Database
    from trendrag.settings import load_settings

    database, rows = Database.of(load_settings()), 0
    try:
        async for piece in exported(database, how, since=since):
            output.write(piece)
            rows += piece.count("\n")
    finally:
        await database.aclose()
    return rows
