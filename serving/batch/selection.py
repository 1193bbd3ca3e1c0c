"""Which records are captioned: by default those whose description nobody wrote."""

import re
from dataclasses import dataclass
from unicodedata import normalize

from serving.batch.records import Record
from trendrag.errors import ConfigurationError

SYNTHETIC = (
    r"\b(?:captur|dat|pris|photographi)[ée]e?s? ou (?:captur|dat|pris|photographi)[ée]e?s? "
    r"(?:d[eu]s?\b|en\b|le\b|d['’])"
    r"|\b(?:captured|taken|photographed) or dated (?:in|on|to|from|the|around)\b"
)
"""What archives generate: "Parc Lafontaine. Capturée ou datée de Décennie 1930", and the same in English."""

_LOOKED_AT = 4_000  # characters of a description


@dataclass(frozen=True, slots=True)
class Selection:
    """``everything`` takes all records. Otherwise one is taken where the field ``description`` is absent, empty or no
    text, or where ``synthetic`` is found in it, in either case. Of those taken the first ``offset`` are left out, and
    then at most ``limit`` are captioned (None: all)."""

    synthetic: re.Pattern[str]
    description: str = "description"
    everything: bool = False
    offset: int = 0
    limit: int | None = None

    def takes(self, record: Record) -> bool:
        if self.everything:
            return True
        said = record.fields.get(self.description)
        return (
            not isinstance(said, str)
            or not said.strip()
            or bool(self.synthetic.search(normalize("NFC", said[:_LOOKED_AT])))
        )


def compiled(pattern: str) -> re.Pattern[str]:
    """
    Raises:
        ConfigurationError: no regular expression.
    """
    try:
        return re.compile(pattern, re.IGNORECASE)
    except re.error as error:
        raise ConfigurationError(f"The rule of synthetic descriptions is no regular expression: {error}") from error
