"""`trendrag batch`: captions for the records of an archive, none of them lost, none of them twice.

    lines (source) → records → selected → images → captions → outcomes → journal → output and errors, in input order

``engine`` is the loop; the journal is the truth, and the output can be made of it and the input at any time.
"""
