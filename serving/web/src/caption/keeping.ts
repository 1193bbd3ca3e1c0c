/** Favourites and feedback of a text that the history keeps. */
import { put, remove } from "../api/client";

export function favour(id: string, number: number, favourite: boolean): Promise<unknown> {
  const path = { caption: id, number };
  const route = "/api/v1/history/{caption}/candidates/{number}/favourite";
  return favourite ? put(route, { path }) : remove(route, { path });
}

/** Replaces what was said before: both are always sent. */
export function judge(
  id: string,
  number: number,
  opinion: { verdict: "like" | "dislike" | null; edited: string | null },
): Promise<unknown> {
  return put("/api/v1/history/{caption}/candidates/{number}/feedback", { path: { caption: id, number }, body: opinion });
}
