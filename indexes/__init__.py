"""Text to vectors, vectors to a snapshot on disk, and the retriever that reads it.

Knows nothing of sources, scoring or serving: trends come in as values, a snapshot directory is what goes out.
"""
