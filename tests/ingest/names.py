"""Names of topics, as the tests of what unites them need them."""

from hypothesis import strategies as st

from ingest.observation import joined_form
from ingest.same import Named

YEAR = 2026

_NAMES = (
    """
Sinner|Jannik Sinner|Joe Sinner|Williams|Serena Williams|Venus Williams|Eras Tour|Taylor Swift Eras Tour|Taylor Swift
World Cup|Weltmeisterschaft|Women's World Cup|World Cup 2026|World Cup final|World Cup semi-final|World Cup 2022
iPhone 17|iPhone 18|Apple iPhone 18|#iPhone18|Rocky IV|Rocky 4|Rocky III|Eurovision|Eurovision 2026|Eurovision 2025
WWDC|Worldwide Developers Conference|Noël|Christmas|Weihnachten 2026|Christmas Eve|autumn colours|autumn color
Sabrina Carpenter|Sabrinna Carpenter|Sabrina Carpentre|Timothée Chalamet|Timothee Chalomet|Zoë Müller|Zoe Mueller
Arsenal vs Chelsea|Chelsea v Arsenal|Arsenal|Glasshouse Festival|Glasshouse Flower Festival|latte art|#LatteArt
""".replace("\n", "|")
    .strip("|")
    .split("|")
)
_HEADLINES = [
    "Jannik Sinner wins again in Turin",
    "Serena Williams and Venus Williams meet",
    "Taylor Swift Eras Tour: Eras Tour ends in Vancouver",
    "WWDC, the Worldwide Developers Conference",
    "Arsenal beat Chelsea in the World Cup final",
    "Glasshouse Festival and Glasshouse Flower Festival glow",
]


def record(name: str, *headlines: str) -> Named:
    return Named.of(joined_form(name), [name], headlines, YEAR)


def names() -> st.SearchStrategy[Named]:
    """Names that are often nearly the same, some with headlines in common."""
    headlines = st.lists(st.sampled_from(_HEADLINES), max_size=2)
    return st.builds(lambda name, said: record(name, *said), st.sampled_from(_NAMES), headlines)


def many_names() -> st.SearchStrategy[list[Named]]:
    """Up to a dozen of them, no two of one form."""
    return st.lists(names(), max_size=12, unique_by=lambda named: named.form)
