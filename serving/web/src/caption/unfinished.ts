/**
 * The request that is being written, kept in this browser until it ends: a page that is loaded again in the middle of a
 * stream asks for it again, with the same key, so that an answer that was finished meanwhile is not written twice.
 */
import type { Settings } from "./settings";

export interface Unfinished {
  key: string;
  photo: Blob;
  name: string;
  settings: Settings;
}

const DATABASE = "trendrag";
const STORE = "unfinished";

export async function keepUnfinished(request: Unfinished): Promise<void> {
  await inStore("readwrite", (store) => store.put(request, "request"));
}

export async function forgetUnfinished(): Promise<void> {
  await inStore("readwrite", (store) => store.delete("request"));
}

export async function loadUnfinished(): Promise<Unfinished | null> {
  return ((await inStore("readonly", (store) => store.get("request"))) as Unfinished | undefined) ?? null;
}

/** Where the browser keeps nothing (private windows), nothing is found: that is no error. */
async function inStore(mode: IDBTransactionMode, act: (store: IDBObjectStore) => IDBRequest): Promise<unknown> {
  try {
    const database = await settled(
      indexedDB.open(DATABASE, 1),
      (request) => (request.onupgradeneeded = () => request.result.createObjectStore(STORE)),
    );
    try {
      return await settled(act(database.transaction(STORE, mode).objectStore(STORE)));
    } finally {
      database.close();
    }
  } catch {
    return undefined;
  }
}

function settled<Request extends IDBRequest>(
  request: Request,
  prepare?: (request: Request) => void,
): Promise<Request["result"]> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result as Request["result"]);
    request.onerror = () => reject(request.error ?? new Error("not stored"));
    prepare?.(request);
  });
}
