"""A soak as a page for benchmarks/."""

from tests.soak.publisher import TRENDS
from tests.soak.soak import PAUSE, QUIET, READERS, SWAPPING, Soaked, percentile

_PAGE = """\
# Hot swap under load

`make bench-soak` wrote this. {readers} readers ask one after the other, with the real embedder, {trends:,} trends and a
part of the concepts: {quiet:.0f} s from one snapshot, then {swapping:.0f} s while another process publishes one every
{pause:.0f} s; every tenth time a damaged one. The publisher uses the same cores. No question is asked twice.

| | quiet | swapping | ratio (aim: ≤ 2) |
| --- | --- | --- | --- |
{rows}

{read:,} answers, {failed} failed, {torn} torn; {published} snapshots were published, {seen} of them answered from.
Memory (MiB): {before:.0f} before the first swap, {early:.0f} after a third of them, {after:.0f} at the end, when one
snapshot is in use again. So memory is **not** all back; how much of that the allocator keeps has not been found out.
Machine: Linux, 2 cores that others used too, Python 3.11.
"""


def report(soaked: Soaked) -> str:
    rows = [
        f"| {name} (ms) | {quiet:.1f} | {swapping:.1f} | {swapping / quiet:.2f} |"
        for name, quiet, swapping in (
            (name, percentile(soaked.quiet, share), percentile(soaked.swapping, share))
            for name, share in (("p50", 50), ("p99", 99), ("slowest", 100))
        )
    ]
    rates = len(soaked.quiet) / QUIET, len(soaked.swapping) / SWAPPING
    rows.append(f"| answers a second | {rates[0]:.0f} | {rates[1]:.0f} | {rates[1] / rates[0]:.2f} |")
    before, early, after = (size / 2**20 for size in soaked.rss)
    return _PAGE.format(
        readers=READERS,
        trends=TRENDS,
        quiet=QUIET,
        swapping=SWAPPING,
        pause=PAUSE,
        rows="\n".join(rows),
        read=len(soaked.quiet) + len(soaked.swapping),
        failed=len(soaked.failures),
        torn=len(torn(soaked)),
        published=len(soaked.published) - 1,
        seen=len({each.snapshot for each in soaked.swapping}),
        before=before,
        early=early,
        after=after,
    )


def torn(soaked: Soaked) -> list[str]:
    """Snapshots of which an answer was not all theirs."""
    reads = soaked.quiet + soaked.swapping
    return [each.snapshot for each in reads if each.numbers != {soaked.published.get(each.snapshot)}]
