/** A finished caption with its trend words marked. Offsets count code points, as the API does, not UTF-16 units. */
import type { ReactNode } from "react";

import type { Schemas } from "../api/client";

interface MarkedProps {
  text: string;
  highlights: Schemas["HighlightAnswer"][];
}

export function Marked({ text, highlights }: MarkedProps) {
  const points = Array.from(text);
  const parts: ReactNode[] = [];
  let end = 0;
  for (const mark of [...highlights].sort((one, other) => one.start - other.start)) {
    parts.push(points.slice(end, mark.start).join(""));
    parts.push(<mark key={mark.start}>{points.slice(mark.start, mark.end).join("")}</mark>);
    end = mark.end;
  }
  parts.push(points.slice(end).join(""));
  return <bdi>{parts}</bdi>;
}
