/**
 * A sparkline of a trend: how many of its sightings there were by when, from the first to the last.
 *
 * Made of the evidence that came with the trend, which is a selection: it shows the shape, not all the numbers.
 */
import { When } from "../ui/when";
import type { Trend } from "./stream";

const WIDTH = 280;
const HEIGHT = 56;
const EDGE = 5;

export function Sightings({ trend }: { trend: Trend }) {
  const first = Date.parse(trend.first_seen);
  const last = Math.max(Date.parse(trend.last_seen), first + 1);
  const times = trend.evidence
    .flatMap(({ published_at }) => (published_at ? [Date.parse(published_at)] : []))
    .map((time) => Math.min(Math.max(time, first), last))
    .sort((a, b) => a - b);
  const x = (time: number) => EDGE + ((time - first) / (last - first)) * (WIDTH - 2 * EDGE);
  const y = (count: number) => HEIGHT - EDGE - (count / Math.max(times.length, 1)) * (HEIGHT - 2 * EDGE);
  const points = times.map((time, index) => [x(time), y(index + 1)] as const);
  const line = points.reduce((path, [px, py]) => `${path} H${px.toFixed(1)} V${py.toFixed(1)}`, `M${EDGE} ${y(0)}`);
  return (
    <figure className="sightings">
      {points.length > 1 && (
        <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label={`${points.length} sightings, dated, from first to last`}>
          <path className="spark-area" d={`${line} H${WIDTH - EDGE} V${HEIGHT - EDGE} H${EDGE} Z`} />
          <path className="spark-line" d={`${line} H${WIDTH - EDGE}`} />
          {points.map(([px, py], index) => (
            <circle key={index} className="spark-dot" cx={px} cy={py} r={3.5} />
          ))}
        </svg>
      )}
      <figcaption className="small muted">
        <span>
          first seen <When at={trend.first_seen} />
        </span>
        <span>
          last seen <When at={trend.last_seen} />
        </span>
      </figcaption>
    </figure>
  );
}
