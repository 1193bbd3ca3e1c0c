/**
 * The visitor's API key, for servers that want one.
 *
 * It is kept in this tab's session storage, which ends with the tab: not where other tabs or later visitors of the same
 * browser find it, and never in an address. It leaves the page in one header, towards the server that the page is from.
 */
import { Cell } from "../cell";

/** Why a key is wanted: the server's code and words. */
export interface Wanted {
  code: string;
  message: string;
}

export interface Access {
  key: string | null;
  wanted: Wanted | null;
}

const KEPT_AS = "trendrag.key";

export const access = new Cell<Access>({ key: kept(), wanted: null });

export function keepKey(key: string): void {
  try {
    sessionStorage.setItem(KEPT_AS, key);
  } catch {
    // Storage is off: it lasts as long as the page.
  }
  access.set({ key, wanted: null });
}

export function forgetKey(): void {
  try {
    sessionStorage.removeItem(KEPT_AS);
  } catch {
    // Nothing was kept.
  }
  access.update({ key: null });
}

/** The server refused a request that went with `key`. That is not sent again, for wrong ones are counted. */
export function keyRefused(key: string | null, wanted: Wanted): void {
  if (key !== access.get().key) return; // another one is in use by now
  if (key === null && access.get().wanted) return; // asked for already, perhaps with a better reason
  forgetKey();
  access.update({ wanted });
}

function kept(): string | null {
  try {
    return sessionStorage.getItem(KEPT_AS);
  } catch {
    return null;
  }
}
