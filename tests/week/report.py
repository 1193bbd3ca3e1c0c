"""A lived week as a page for benchmarks/: a row a day."""

from datetime import timedelta

from tests.week.life import After

Week = list[After]
_COLUMNS = (
    "Day", "refreshes", "published", "new observations", "trends", "oldest seen", "memory (MiB)", "database (MiB)",
    "snapshots (MiB)",
)  # fmt: skip
_PAGE = """\
# A week of its own

`make bench-week` lives through seven made-up days in a few minutes: an hourly refresh of 14 sources of every default
type over real HTTP, with the real embedder, database and snapshot files; only the clock is not real.
`tests/week/world.py` is the world, `tests/week/test_week.py` says what must hold in it. On day 2 a source answers 410
for good, on day 3 one turns to HTML, in the second half of day 4 nothing answers at all; one feed repeats itself all
week, and one has wrong dates.

{table}

"Oldest seen" is the greatest age of a trend in any of the day's snapshots; the limit is 72 h. No trend claimed to have
been seen later than a source had spoken of it. Memory is that of the whole process, the made-up servers included.
Machine: Linux, 2 cores that others used too, Python 3.11.
"""


def report(week: Week) -> str:
    return _PAGE.format(table=table(week))


def day(week: Week, number: int) -> Week:
    """From 1."""
    return [after for after in week if after.hour // 24 == number - 1]


def table(week: Week) -> str:
    """Sizes are those at a day's end."""
    rows = [_COLUMNS, ("---",) * len(_COLUMNS)]
    known = 0
    for number in range(1, len(week) // 24 + 1):
        lived = day(week, number)
        last = lived[-1]
        published = sum(after.outcome == "published" for after in lived)
        oldest = max(after.oldest for after in lived) // timedelta(hours=1)
        counts = (str(each) for each in (number, len(lived), published, last.observations - known, last.trends))
        sizes = (f"{size / 2**20:.1f}" for size in (last.rss, last.database, last.files))
        rows.append((*counts, f"{oldest} h", *sizes))
        known = last.observations
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
