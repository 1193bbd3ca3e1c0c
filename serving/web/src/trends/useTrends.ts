/** The trends that pass a question, page by page. A new question leaves what is shown in place until its answer is there. */
import { useCallback, useEffect, useRef, useState } from "react";

import { get, known, type ApiError, type Schemas } from "../api/client";

export interface Question {
  q: string;
  region: string;
  category: string;
  stage: string;
}

export interface Found {
  items: Schemas["Trend"][];
  next: string | null;
  passing: number;
  withheld: number | null;
  snapshot: Schemas["SnapshotInfo"];
}

interface Trends {
  found: Found | null;
  error: ApiError | null;
  loading: boolean;
  more: () => void;
  again: () => void;
}

const PAGE = 24;
const TYPING_MS = 250;

export function useTrends(question: Question): Trends {
  const [found, setFound] = useState<Found | null>(null);
  const [error, setError] = useState<ApiError | null>(null);
  const [loading, setLoading] = useState(true);
  const [tries, setTries] = useState(0);
  const asking = useRef<AbortController | null>(null);
  const first = useRef(true);

  const ask = useCallback(
    async (cursor: string | null) => {
      asking.current?.abort();
      const mine = (asking.current = new AbortController());
      setLoading(true);
      try {
        const answer = await get("/api/v1/trends", {
          query: { ...question, limit: PAGE, cursor },
          signal: mine.signal,
        });
        setFound((before) => ({ ...answer, items: cursor && before ? [...before.items, ...answer.items] : answer.items }));
        setError(null);
      } catch (failure) {
        if (mine.signal.aborted) return;
        setError(known(failure));
      }
      if (!mine.signal.aborted) setLoading(false);
    },
    [question],
  );

  useEffect(() => {
    // Typing asks when it pauses; the first look asks at once.
    const timer = setTimeout(() => void ask(null), first.current ? 0 : TYPING_MS);
    first.current = false;
    return () => {
      clearTimeout(timer);
      asking.current?.abort();
    };
  }, [ask, tries]);

  return {
    found,
    error,
    loading,
    more: () => found?.next && void ask(found.next),
    again: () => setTries((count) => count + 1),
  };
}
