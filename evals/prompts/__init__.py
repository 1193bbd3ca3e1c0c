"""The prompts of tasks, a text file each. A run keeps their hash: what was asked is part of a figure."""

import hashlib
from importlib.resources import files


def prompt(name: str) -> str:
    """The text of ``NAME.txt`` beside this file, without the last line's end."""
    return (files("evals") / "prompts" / f"{name}.txt").read_text("utf-8").removesuffix("\n")


def prompt_sha256(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def chain_sha256() -> str:
    """Of all prompts of the caption chain."""
    folder = files("trendrag") / "prompts"
    parts = sorted((each.name, each.read_text("utf-8")) for each in folder.iterdir() if each.name.endswith(".txt"))
    return prompt_sha256(*(text for part in parts for text in part))
