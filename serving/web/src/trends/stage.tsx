/** Where a trend is on its way up and down. */
import type { Schemas } from "../api/client";

const STAGES: Record<Schemas["Trend"]["stage"], { mark: string; word: string }> = {
  rising: { mark: "↗", word: "Rising" },
  peaking: { mark: "→", word: "At its peak" },
  fading: { mark: "↘", word: "Fading" },
};

export function StageChip({ stage }: { stage: Schemas["Trend"]["stage"] }) {
  const { mark, word } = STAGES[stage];
  return (
    <span className={`chip stage-${stage}`}>
      <span aria-hidden="true">{mark}</span>
      <span>{word}</span>
    </span>
  );
}
