/** A list that is asked for page by page. A new question leaves what is shown in place until its answer is there. */
import { useCallback, useEffect, useRef, useState } from "react";

import { access } from "../access/key";
import { useCell } from "../cell";
import { known, type ApiError } from "./client";

interface Page {
  items: unknown[];
  next: string | null;
}

interface Pages<Answer> {
  /** The newest answer, with the items of all pages so far. */
  found: Answer | null;
  error: ApiError | null;
  loading: boolean;
  /** Null where there is no further page. */
  more: (() => void) | null;
  again: () => void;
  /** Changes what is shown, for those who change what it is about. */
  change: (how: (shown: Answer) => Answer) => void;
}

const TYPING_MS = 250;

/** `ask` is a question: another function asks again, when typing pauses. So does another key. */
export function usePages<Answer extends Page>(
  ask: (cursor: string | null, signal: AbortSignal) => Promise<Answer>,
): Pages<Answer> {
  const [found, setFound] = useState<Answer | null>(null);
  const [error, setError] = useState<ApiError | null>(null);
  const [loading, setLoading] = useState(true);
  const [tries, setTries] = useState(0);
  const asking = useRef<AbortController | null>(null);
  const first = useRef(true);
  const { key } = useCell(access);

  const fetchPage = useCallback(
    async (cursor: string | null) => {
      asking.current?.abort();
      const mine = (asking.current = new AbortController());
      setLoading(true);
      try {
        const answer = await ask(cursor, mine.signal);
        setFound((before) => (cursor && before ? { ...answer, items: [...before.items, ...answer.items] } : answer));
        setError(null);
      } catch (failure) {
        if (mine.signal.aborted) return;
        setError(known(failure));
      }
      if (!mine.signal.aborted) setLoading(false);
    },
    [ask],
  );

  useEffect(() => {
    // The first look asks at once.
    const timer = setTimeout(() => void fetchPage(null), first.current ? 0 : TYPING_MS);
    first.current = false;
    return () => {
      clearTimeout(timer);
      asking.current?.abort();
    };
  }, [fetchPage, tries, key]);

  const change = useCallback((how: (shown: Answer) => Answer) => setFound((shown) => shown && how(shown)), []);
  const next = found?.next;
  return {
    found,
    error,
    loading,
    more: next ? () => void fetchPage(next) : null,
    again: () => setTries((count) => count + 1),
    change,
  };
}
