"""How long an archive takes and what it costs, from published figures of servers on one GPU. Arithmetic only.

The figures: Qwen2.5-VL-3B on vLLM 0.7.2, one image of 480×360 and 128 output tokens a request, requests a second as
published for one GPU (docs/batch.md says more of what they hold for).
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Gpu:
    """Requests a second, the least and the most published. ``price`` is an example, per hour; give your own."""

    name: str
    least: float
    most: float
    price: float


GPUS = (Gpu("A6000", 2.9, 4.7, 0.8), Gpu("A100", 4.4, 5.1, 1.8), Gpu("H100", 4.3, 4.4, 3.0))
TOKENS = 128


@dataclass(frozen=True, slots=True)
class Plan:
    """Hours from the most to the least requests a second, over all GPUs, and what their hours cost."""

    gpu: Gpu
    gpus: int
    rate: tuple[float, float]
    hours: tuple[float, float]
    cost: tuple[float, float]


def plan(rows: int, gpu: Gpu, *, gpus: int = 1, price: float | None = None, rate: float | None = None) -> Plan:
    """``rate``: requests a second of one GPU that you measured, in the place of the published ones.
    ``price``: of one GPU for an hour."""
    least, most = (rate, rate) if rate is not None else (gpu.least, gpu.most)
    hours = rows / (most * gpus) / 3600, rows / (least * gpus) / 3600
    hourly = gpu.price if price is None else price
    return Plan(gpu, gpus, (least * gpus, most * gpus), hours, (hours[0] * hourly * gpus, hours[1] * hourly * gpus))


ASSUMPTIONS = (
    f"Rates: published, of one GPU, Qwen2.5-VL-3B on vLLM 0.7.2, images of 480×360, {TOKENS} tokens out. None is ours.",
    "Each further GPU adds as much (one server each, --server given for each), and images arrive as fast as that.",
    "Larger images cost more: the setting image.model_pixels allows 1,280 tokens. Longer or shorter captions too.",
    "Prices an hour are examples and change; give yours with --gpu-price. Images' transfer is not in them.",
    "A rate of your own replaces the published ones: run some hundred rows with --limit, and give it with --rate.",
)


def duration(hours: float) -> str:
    """As a person would say it: 40 s, 52 min, 3.4 h, 12 d."""
    if hours < 1 / 60:
        return f"{hours * 3600:.0f} s"
    if hours < 1:
        return f"{hours * 60:.0f} min"
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} d"
