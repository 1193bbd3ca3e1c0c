"""What tests look for in a page: faults in its console, findings of axe, shifts of its layout."""

from dataclasses import dataclass, field
from typing import Any

from playwright.sync_api import ConsoleMessage, Page

from tests.web.servers import ROOT

AXE = ROOT / "serving" / "web" / "node_modules" / "axe-core" / "axe.min.js"

# Keeps every shift of the layout that no input of the last half second explains.
_SHIFTS = """
window.shifts = [];
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shifts.push(entry.value);
}).observe({ type: "layout-shift", buffered: true });
"""


@dataclass
class Watched:
    """``faults``: exceptions, breaches of the policy, and requests to anywhere but the server."""

    page: Page
    faults: list[str] = field(default_factory=list)


def watch(page: Page) -> Watched:
    watched = Watched(page)

    def heard(message: ConsoleMessage) -> None:
        # What the network refuses is in the console too; how the page tells of that is for the tests themselves.
        if message.type == "error" and "Failed to load resource" not in message.text:
            watched.faults.append(message.text)

    page.on("console", heard)
    page.on("pageerror", lambda error: watched.faults.append(str(error)))
    page.on(
        "request",
        lambda request: (
            watched.faults.append(f"asked {request.url}")
            if not request.url.startswith(("http://127.0.0.1:", "blob:http://127.0.0.1:", "data:", "about:"))
            else None
        ),
    )
    page.add_init_script(_SHIFTS)
    return watched


def shifts(page: Page) -> float:
    """The sum of all shifts so far, in the unit of the Layout Instability API."""
    total: float = page.evaluate("window.shifts.reduce((sum, each) => sum + each, 0)")
    return total


def findings(page: Page) -> list[str]:
    """What axe finds that is serious or critical, once what moves has come to rest. Its script comes in beside the
    policy, through the debugger."""
    page.evaluate("document.getAnimations().forEach((each) => each.effect.getTiming().iterations < 9 && each.finish())")
    page.evaluate(AXE.read_text("utf-8"))
    found: list[dict[str, Any]] = page.evaluate("async () => (await axe.run(document)).violations")
    return [
        f"{each['id']}: {node['html'][:200]} {node.get('failureSummary', '')}"
        for each in found
        if each["impact"] in {"serious", "critical"}
        for node in each["nodes"]
    ]
