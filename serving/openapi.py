"""The description of the API, as a file: ``python -m serving.openapi > docs/openapi.json`` (`make openapi`).

It does not depend on settings; a test holds the checked-in file to what the server answers at /openapi.json.
"""

import json
import sys

from serving.app import create_app
from trendrag.settings import Settings


def document() -> str:
    """OpenAPI 3.1 as JSON, indented, so that a change reads well in a diff."""
    return json.dumps(create_app(Settings()).openapi(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(document())
