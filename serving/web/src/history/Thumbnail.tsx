/** The small picture of an answer in the history. */
import { useEffect, useState } from "react";

import { access } from "../access/key";
import { address, send } from "../api/client";
import { useCell } from "../cell";

interface ThumbnailProps {
  /** Of the answer. */
  id: string;
  note: string | null | undefined;
  className?: string;
}

const ROUTE = "/api/v1/history/{caption}/thumbnail";

export function Thumbnail({ id, note, className }: ThumbnailProps) {
  const { key } = useCell(access);
  const fetched = useFetched(id, key !== null);
  // With a key the browser can't ask by itself: an address must not hold one.
  const source = key === null ? address(ROUTE, { path: { caption: id } }) : fetched;
  if (!source) return null;
  return <img className={className} src={source} alt={note ? `Your photo: ${note}` : "Your photo"} loading="lazy" />;
}

function useFetched(id: string, wanted: boolean): string | null {
  const [url, setUrl] = useState<string | null>(null);
  useEffect(() => {
    if (!wanted) return;
    const asking = new AbortController();
    let made: string | null = null;
    send("GET", ROUTE, { path: { caption: id }, signal: asking.signal })
      .then((answer) => answer.blob())
      .then(
        (blob) => {
          if (asking.signal.aborted) return;
          made = URL.createObjectURL(blob);
          setUrl(made);
        },
        () => undefined, // its place stays empty
      );
    return () => {
      asking.abort();
      if (made) URL.revokeObjectURL(made);
    };
  }, [id, wanted]);
  return url;
}
