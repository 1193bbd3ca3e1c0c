/** The visitor's captions as a list that is searched, continued and changed in place. */
import { useCallback, useEffect, useRef, useState } from "react";

import { get, known, put, remove, type ApiError, type Schemas } from "../api/client";

export type Entry = Schemas["Summary"];

export interface Wanted {
  q: string;
  favourite: boolean;
}

const PAGE = 20;
const TYPING_MS = 250;

export function useHistory(wanted: Wanted) {
  const [entries, setEntries] = useState<Entry[] | null>(null);
  const [next, setNext] = useState<string | null>(null);
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
        const answer = await get("/api/v1/history", {
          query: { q: wanted.q.trim(), favourite: wanted.favourite || null, limit: PAGE, cursor },
          signal: mine.signal,
        });
        setEntries((before) => (cursor && before ? [...before, ...answer.items] : answer.items));
        setNext(answer.next);
        setError(null);
      } catch (failure) {
        if (mine.signal.aborted) return;
        setError(known(failure));
      }
      if (!mine.signal.aborted) setLoading(false);
    },
    [wanted],
  );

  useEffect(() => {
    const timer = setTimeout(() => void ask(null), first.current ? 0 : TYPING_MS);
    first.current = false;
    return () => {
      clearTimeout(timer);
      asking.current?.abort();
    };
  }, [ask, tries]);

  /** Shows the change at once, and takes it back where the server does not. */
  const favour = useCallback(async (id: string, number: number, favourite: boolean) => {
    const show = (value: boolean) =>
      setEntries((before) => before?.map((each) => (each.id === id ? favoured(each, number, value) : each)) ?? null);
    show(favourite);
    try {
      const path = { caption: id, number };
      const route = "/api/v1/history/{caption}/candidates/{number}/favourite";
      await (favourite ? put(route, { path }) : remove(route, { path }));
    } catch (failure) {
      show(!favourite);
      throw known(failure);
    }
  }, []);

  const drop = useCallback(async (id: string) => {
    try {
      await remove("/api/v1/history/{caption}", { path: { caption: id } });
    } catch (failure) {
      const told = known(failure);
      if (told.status !== 404) throw told; // gone already is as good
    }
    setEntries((before) => before?.filter((each) => each.id !== id) ?? null);
  }, []);

  const clear = useCallback(async () => {
    await remove("/api/v1/history").catch((failure: unknown) => {
      throw known(failure);
    });
    setEntries([]);
    setNext(null);
  }, []);

  return {
    entries,
    error,
    loading,
    more: next ? () => void ask(next) : null,
    again: () => setTries((count) => count + 1),
    favour,
    drop,
    clear,
  };
}

function favoured(entry: Entry, number: number, favourite: boolean): Entry {
  return { ...entry, captions: entry.captions.map((each, index) => (index === number ? { ...each, favourite } : each)) };
}
