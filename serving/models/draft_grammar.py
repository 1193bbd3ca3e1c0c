"""Writes a plan of alternatives as a GBNF grammar, which llama.cpp holds a model's decoding to.

Syntax: llama.cpp, grammars/README.md. Texts come from notes and trends, so every character but plain letters, digits
and spaces is written by its number: nothing in a text can end its literal.
"""

from collections.abc import Sequence

Slots = Sequence[Sequence[str]]
"""A text is one alternative of each slot, one after the other."""


def grammar(slots: Slots) -> str:
    """The grammar whose language is exactly the texts of the plan. Slots must not be empty."""
    rules = [f"root ::= {' '.join(f's{number}' for number in range(len(slots)))}"]
    rules += [f"s{number} ::= {' | '.join(map(literal, slot))}" for number, slot in enumerate(slots)]
    return "\n".join(rules) + "\n"


def literal(text: str) -> str:
    """A GBNF string literal that matches exactly ``text``. Lone surrogates, which no text has, are left out."""
    return f'"{"".join(map(_escape, text))}"'


def _escape(char: str) -> str:
    if char == " " or (char.isascii() and char.isalnum()):
        return char
    if "\ud800" <= char <= "\udfff":
        return ""
    return f"\\U{ord(char):08X}"
