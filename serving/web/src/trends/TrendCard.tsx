/** One trend: how strong it is, of what kind, and on demand where it was seen. */
import type { Schemas } from "../api/client";
import { When } from "../ui/when";
import { Evidence } from "./Evidence";
import { regionName } from "./regions";
import { StageChip } from "./stage";

export function TrendCard({ trend }: { trend: Schemas["Trend"] }) {
  const strength = Math.round(trend.score * 100);
  const others = trend.aliases.filter((alias) => alias !== trend.phrase);
  return (
    <li className="trend">
      <article>
        <header>
          <h3>
            <bdi>{trend.phrase}</bdi>
          </h3>
          <StageChip stage={trend.stage} />
        </header>
        <svg className="strength" viewBox="0 0 100 4" preserveAspectRatio="none" role="img" aria-label={`Strength ${strength} of 100`}>
          <rect width="100" height="4" />
          <rect className="strength-full" width={strength} height="4" />
        </svg>
        {trend.summary && trend.summary !== trend.phrase && (
          <p className="trend-summary">
            <bdi>{trend.summary}</bdi>
          </p>
        )}
        <p className="muted small">
          Last seen <When at={trend.last_seen} />, first <When at={trend.first_seen} />
        </p>
        <ul className="chips">
          {trend.region && <li className="chip">{regionName(trend.region)}</li>}
          {trend.categories.map((category) => (
            <li className="chip" key={category}>
              <bdi>{category}</bdi>
            </li>
          ))}
        </ul>
        <details>
          <summary>
            Seen in {trend.evidence.length} {trend.evidence.length === 1 ? "place" : "places"}
            <span className="visually-hidden"> ({trend.phrase})</span>
          </summary>
          <Evidence items={trend.evidence} />
          {others.length > 0 && (
            <p className="muted small">
              Also said: <bdi>{others.join(", ")}</bdi>
            </p>
          )}
        </details>
      </article>
    </li>
  );
}
