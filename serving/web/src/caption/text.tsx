/** A caption's text with its trend words lit. Everything from outside is a text node within its own direction. */
import { Fragment, type ReactNode } from "react";

import { Icon } from "../ui/icon";
import type { Mark } from "./stream";

interface CaptionTextProps {
  text: string;
  marks: readonly Mark[];
  /** Called with the trend whose word was chosen; without it words are lit but are no buttons. */
  onWhy?: (trendId: string) => void;
}

export function CaptionText({ text, marks, onWhy }: CaptionTextProps) {
  // The API counts code points, JavaScript's strings count UTF-16 units.
  const points = Array.from(text);
  const parts: ReactNode[] = [];
  let at = 0;
  for (const { start, end, trend_id } of marks) {
    if (start < at || end > points.length) continue; // not in order, or not there yet
    const words = points.slice(start, end).join("");
    parts.push(
      <Fragment key={start}>
        {points.slice(at, start).join("")}
        {onWhy ? (
          <button type="button" className="lit" title="Why this word?" onClick={() => onWhy(trend_id)}>
            {words}
            <Icon name="spark" />
          </button>
        ) : (
          <mark className="lit">
            {words}
            <Icon name="spark" />
          </mark>
        )}
      </Fragment>,
    );
    at = end;
  }
  return (
    <bdi className="caption-text" dir="auto">
      {parts}
      {points.slice(at).join("")}
    </bdi>
  );
}
