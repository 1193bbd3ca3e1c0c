import type { Schemas } from "../api/client";

/** The server's own limit is a setting (TRENDRAG_INGEST__MAX_AGE_HOURS); this is its default. */
const OLD_MS = 72 * 3_600_000;

/** Whether nothing new was seen for so long that something is wrong. Sample trends are old by their nature. */
export function isOld({ origin, recorded_at }: Schemas["SnapshotInfo"], now = Date.now()): boolean {
  return origin === "live" && recorded_at !== null && now - Date.parse(recorded_at) > OLD_MS;
}
