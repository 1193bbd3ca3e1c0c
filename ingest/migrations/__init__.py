"""The history of the tables of ``ingest.schema``: each change is a file of ``versions``; their numbers say the order.

CONTRIBUTING.md says how one is written. ``trendrag.database`` runs them when a database is opened.
"""
