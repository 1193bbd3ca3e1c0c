"""The book: what has been made of all observations so far, so that a refresh costs what is new.

    entries    what one observation offers, and what it is found by
    assign     which groups items belong to, where some come or go
    unions     which groups are one topic, where some groups change
    topics     a group merged, judged and rated
    sources    what scores need to know of each source as a whole
    shelf      what is asked of the tables (``tables``: how)
    keeping    brings the book up to a time, and reads from it what trends

It can always be made anew from the observations, gives the same trends as ``pipeline.decide`` does, and is written in
one transaction: a crash leaves it as of the refresh before.
"""
