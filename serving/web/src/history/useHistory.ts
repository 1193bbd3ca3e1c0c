/** The visitor's captions as a list that is searched, continued and changed in place. */
import { useCallback } from "react";

import { get, known, remove, type Schemas } from "../api/client";
import { usePages } from "../api/usePages";
import { favour as keepFavourite } from "../caption/keeping";

export type Entry = Schemas["Summary"];

export interface Wanted {
  q: string;
  favourite: boolean;
}

const PAGE = 20;

export function useHistory(wanted: Wanted) {
  const ask = useCallback(
    (cursor: string | null, signal: AbortSignal) =>
      get("/api/v1/history", {
        query: { q: wanted.q.trim(), favourite: wanted.favourite || null, limit: PAGE, cursor },
        signal,
      }),
    [wanted],
  );
  const { found, error, loading, more, again, change } = usePages(ask);
  const changeEntries = useCallback(
    (how: (entries: Entry[]) => Entry[]) => change((shown) => ({ ...shown, items: how(shown.items) })),
    [change],
  );

  /** Shows the change at once, and takes it back where the server does not. */
  const favour = useCallback(
    async (id: string, number: number, favourite: boolean) => {
      const show = (value: boolean) =>
        changeEntries((entries) => entries.map((each) => (each.id === id ? favoured(each, number, value) : each)));
      show(favourite);
      try {
        await keepFavourite(id, number, favourite);
      } catch (failure) {
        show(!favourite);
        throw known(failure);
      }
    },
    [changeEntries],
  );

  const drop = useCallback(
    async (id: string) => {
      try {
        await remove("/api/v1/history/{caption}", { path: { caption: id } });
      } catch (failure) {
        const told = known(failure);
        if (told.status !== 404) throw told; // gone already is as good
      }
      changeEntries((entries) => entries.filter((each) => each.id !== id));
    },
    [changeEntries],
  );

  const clear = useCallback(async () => {
    await remove("/api/v1/history").catch((failure: unknown) => {
      throw known(failure);
    });
    change((shown) => ({ ...shown, items: [], next: null }));
  }, [change]);

  return { entries: found?.items ?? null, error, loading, more, again, favour, drop, clear };
}

function favoured(entry: Entry, number: number, favourite: boolean): Entry {
  return { ...entry, captions: entry.captions.map((each, index) => (index === number ? { ...each, favourite } : each)) };
}
