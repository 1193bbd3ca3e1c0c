"""Sources → observations → merged, scored, safe trends → a new snapshot.

    sources/       one file per source type: which URL, and bytes → observations
    fetcher.py     the one guarded HTTP layer; turns.py spreads requests to one host
    policy.py      whom to ask when, and what an answer means for the next time (pure); states.py keeps it
    read.py        one source read once, by that policy
    observation.py what a source said, cleaned at the border
    store.py       every observation ever made, append-only, and how each source is doing
    merge.py       observations → topics        ┐
    score.py       topics → burst, stage        ├ pure; the time is an argument
    safety.py      what may not reach a caption ┘ by user_lists.py, safety_rules.py (vocabulary), safety_model.py
    pipeline.py    these three on everything that is known, from the start
    book/          the same, from what is new: what was made of the observations so far, and what the news touches
    refresh.py     the composition of all these; commands.py shows it
    schedule.py    refreshes one after the other, in one process at a time (leader.py); metrics.py tells of them
    check.py       one source by itself, nothing stored; recognise.py says what some bytes are
    source_file.py the user's list, appended to; source_commands.py and source_report.py show both

Knows nothing of serving. What leaves is a snapshot directory, written by ``indexes.publishing``.
"""
