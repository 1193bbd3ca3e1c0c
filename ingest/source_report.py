"""What `trendrag sources` prints: of the list, of a check, for people and as JSON. Decides nothing."""

from collections import Counter
from datetime import datetime
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ingest.check import Check, advice
from ingest.policy import FetchState
from ingest.recognise import Feed
from ingest.sources.base import Source, SourceEntry
from ingest.store import SourceStatus
from trendrag.text import age

_SHOWN = 40
"""Rows of a table on a terminal; `--json` gives all."""


def as_dict(done: Check) -> dict[str, Any]:
    """The check as `--json` prints it."""
    answer, plan = done.answer, done.outlook
    return {
        "target": done.target,
        "usable": done.usable,
        "type": done.fields.get("type"),
        "error": {"code": done.error.code, "message": str(done.error)} if done.error else None,
        "advice": advice(done),
        "answer": {
            "asked": answer.asked,
            "url": answer.url,
            "status": answer.status,
            "content_type": answer.content_type,
            "bytes": answer.size,
            "seconds": answer.seconds,
        },
        "items": len(done.parsed.observations),
        "dropped": dict(done.parsed.dropped),
        "newest": _iso(done.newest),
        "trends": list(plan.phrases),
        "withheld": dict(plan.withheld),
        "left_out": dict(plan.left_out),
        "too_old": plan.too_old,
        "feeds": [{"url": feed.url, "title": feed.title} for feed in done.feeds],
        "observations": [
            {
                "title": each.title,
                "kind": each.kind,
                "date": _iso(each.published_at),
                "volume": each.volume,
                "url": each.url,
            }
            for each in done.parsed.observations
        ],
    }


def listed(source: Source, status: SourceStatus | None, asked: FetchState, now: datetime) -> dict[str, Any]:
    said = source.model_dump(mode="json") if isinstance(source, SourceEntry) else {}
    return {
        "id": source.id,
        "type": said.get("type"),
        "urls": list(source.urls(now)),
        "family": source.family,
        "language": said.get("language"),
        "region": said.get("region"),
        "categories": said.get("categories", []),
        "last_success": _iso(status.last_success) if status else None,
        "last_error_at": _iso(status.last_error_at) if status else None,
        "last_error": status.last_error if status else None,
        "items": status.items if status else None,
        "bytes": status.size if status else None,
        "every_seconds": round(source.every.total_seconds()),
        "next_due": _iso(asked.next_due),
        "errors": asked.errors,
        "muted": asked.muted,
    }


def show_listed(source: Source, status: SourceStatus | None, asked: FetchState, now: datetime) -> None:
    row = listed(source, status, asked, now)
    about = [row["type"], row["language"] if row["language"] != "und" else None, row["region"], *row["categories"]]
    click.echo(click.style(row["id"], bold=True) + "  " + ", ".join(filter(None, about)))
    click.echo(f"    {row['urls'][0]}")
    good = state(status, now)
    click.echo("    " + (click.style(good, fg="red") if status and status.last_error else good))
    click.echo(f"    {plan(source, asked, now)}")


def state(status: SourceStatus | None, now: datetime) -> str:
    """How a source is doing, in words. Pure."""
    if status is None or (status.last_success is None and status.last_error is None):
        return "never read"
    read = f"{status.items} items {age(now - status.last_success)} ago" if status.last_success else "never read well"
    if status.last_error is None:
        return read
    failed = f"failed {age(now - status.last_error_at)} ago" if status.last_error_at else "failed"
    return f"{failed}: {status.last_error} ({read})"


def plan(source: Source, asked: FetchState, now: datetime) -> str:
    """When a source is asked next, and what that hangs on, in words. Pure."""
    if asked.muted:
        return f"muted: {asked.muted}; change or remove its entry"
    said = [f"asked every {age(source.every)}"]
    if asked.errors:
        said.append(f"{asked.errors} error{'s' if asked.errors > 1 else ''} in a row")
    due = asked.next_due
    said.append(f"next in {age(due - now)}" if due and due > now else "due now")
    return ", ".join(said)


def show(done: Check, now: datetime) -> None:
    _show_answer(done)
    seen = done.parsed.observations
    if done.error:
        click.echo(click.style(f"error    {done.error}", fg="red"))
    else:
        click.echo(f"items    {len(seen)}")
        _show_counts("refused ", done.parsed.dropped)
        if done.newest:
            click.echo(f"newest   {done.newest:%Y-%m-%d %H:%M} UTC, {age(now - done.newest)} ago")
        _show_outlook(done)
    if said := advice(done):
        click.echo(said)
    _show_feeds(done.feeds)
    if seen:
        _show_table(done)


def _show_answer(done: Check) -> None:
    answer = done.answer
    click.echo(f"address  {answer.url}" + (f" (redirected from {answer.asked})" if answer.url != answer.asked else ""))
    parts = [f"status {answer.status}" if answer.status else None, answer.content_type]
    parts += [f"{answer.size} bytes" if answer.size is not None else None]
    parts += [f"{answer.seconds:.1f} s" if answer.seconds is not None else None]
    click.echo(f"answer   {', '.join(filter(None, parts))}")
    if kind := done.fields.get("type"):
        click.echo(f"type     {kind}")


def _show_outlook(done: Check) -> None:
    plan = done.outlook
    click.echo(f"trends   {len(plan.phrases)} by itself" + (f": {', '.join(plan.phrases[:6])}" if plan.phrases else ""))
    _show_counts("left out", plan.left_out + Counter({"too old": plan.too_old}))
    _show_counts("withheld", plan.withheld)


def _show_feeds(feeds: tuple[Feed, ...]) -> None:
    for feed in feeds:
        click.echo(f"    {feed.url}" + (f"  ({feed.title})" if feed.title else ""))


def _show_table(done: Check) -> None:
    seen = done.parsed.observations
    table = Table("title", "kind", "date", "volume", box=None, pad_edge=False)
    for each in seen[:_SHOWN]:
        date = f"{each.published_at:%Y-%m-%d %H:%M}" if each.published_at else "-"
        volume = str(each.volume) if each.volume is not None else "-"
        table.add_row(Text(each.title), each.kind, date, volume)  # Text, not markup: it is the source's
    click.echo()
    Console().print(table)
    if len(seen) > _SHOWN:
        click.echo(f"… and {len(seen) - _SHOWN} more (--json gives all)")


def _show_counts(what: str, reasons: Counter[str]) -> None:
    if reasons:
        listed = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in reasons.most_common())
        click.echo(f"{what} {reasons.total()} ({listed})")


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
