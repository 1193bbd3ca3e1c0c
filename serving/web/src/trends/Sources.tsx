/** Which sources the trends come from, and how new what each gave is. */
import { useEffect, useState } from "react";

import { get, type Schemas } from "../api/client";
import { When } from "../ui/when";

type Seen = Schemas["SourceSeen"];

/** A source whose newest piece is so much older than the newest of all has fallen behind. */
const BEHIND_MS = 24 * 3_600_000;

/** `snapshot` is the id of the trends that are shown: with another one, the sources are asked for again. */
export function Sources({ snapshot }: { snapshot: string }) {
  const [sources, setSources] = useState<Seen[]>([]);
  useEffect(() => {
    const asking = new AbortController();
    get("/api/v1/snapshot/sources", { signal: asking.signal }).then(
      (answer) => setSources(answer.items),
      () => undefined, // what keeps the trends from coming is told above
    );
    return () => asking.abort();
  }, [snapshot]);
  if (!sources.length) return null;
  const newest = Math.max(...sources.map((each) => (each.newest ? Date.parse(each.newest) : 0)));
  return (
    <section className="sources" aria-labelledby="sources-title">
      <h2 id="sources-title">Where they come from</h2>
      <p className="muted small">A source that is down, or has nothing new, falls behind the others.</p>
      <div className="table-frame">
        <table>
          <thead>
            <tr>
              <th scope="col">Source</th>
              <th scope="col" className="number">
                Trends
              </th>
              <th scope="col">Newest piece</th>
              <th scope="col">State</th>
            </tr>
          </thead>
          <tbody>
            {sources.map((each) => (
              <tr key={each.source}>
                <th scope="row">
                  <bdi>{each.source}</bdi>
                </th>
                <td className="number">{each.trends}</td>
                <td>{each.newest ? <When at={each.newest} /> : "no dates"}</td>
                <td>{state(each, newest)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}

function state(source: Seen, newest: number) {
  if (!source.newest) return null; // nothing that it gave has a date to judge by
  const isBehind = newest - Date.parse(source.newest) > BEHIND_MS;
  return isBehind ? <span className="chip chip-behind">! Behind</span> : <span className="chip chip-current">✓ Current</span>;
}
