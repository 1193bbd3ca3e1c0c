"""What every task over photos measures of an answer besides its worth. Words, times and tokens are in every record's
items, and need no measure of a task's."""

from evals.record import Item, Measure

CHARACTERS = Measure(name="characters", better=None, about="length of an answer, in code points")


def figured(item: Item) -> Item:
    """``item`` with its figures as scores; those that nobody told are None."""
    characters = None if item.output is None else float(len(item.output))
    return item.model_copy(update={"scores": {**item.scores, CHARACTERS.name: characters}})
