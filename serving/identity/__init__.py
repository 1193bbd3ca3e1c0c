"""Who asks, and what they may.

``keys`` is what an API key is, ``headers`` how one is sent, ``store`` where they are kept, ``keyring`` whether one is
good now, ``quota`` how much of it is used, ``visitors`` the page's cookie, and ``door`` who is asked for a key at all.
Knows no routes: these are in ``serving.http.callers``.
"""
