"""The history of the tables of ``serving.store.tables``: each change is a file of ``versions``, numbered on.

CONTRIBUTING.md says how one is written. ``trendrag.database`` runs them when a database is first used.
"""
