/** Which view is shown, kept in the address after the hash so that reload, back and bookmarks work. */
import { useSyncExternalStore } from "react";

export type View = "caption" | "history" | "trends";

/** The view, and what stands after it: `#/trends/abc` is the view "trends" with the rest "abc". */
export interface Route {
  view: View;
  rest: string;
}

export const HREF: Record<View, string> = { caption: "#/", history: "#/history", trends: "#/trends" };

export function useRoute(): Route {
  const hash = useSyncExternalStore(subscribe, () => window.location.hash);
  const [, name = "", rest = ""] = /^#\/([^/]*)\/?(.*)$/.exec(hash) ?? [];
  const view: View = name === "history" || name === "trends" ? name : "caption";
  return { view, rest: decoded(rest) };
}

function subscribe(changed: () => void): () => void {
  window.addEventListener("hashchange", changed);
  return () => window.removeEventListener("hashchange", changed);
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // an address typed by hand
  }
}
