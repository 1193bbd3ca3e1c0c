"""The kernel of TrendRAG: types, errors, settings, prompts, the highlighter and the caption chain.

It knows neither FAISS, FastAPI, SQL, torch nor an HTTP client, and imports none of the other packages.
"""
