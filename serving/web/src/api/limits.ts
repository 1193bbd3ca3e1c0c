/** How much the API takes, as its description says. */
export interface Limits {
  candidates: number;
  noteChars: number;
  toneChars: number;
  excluded: number;
  turns: number;
  turnChars: number;
  avoided: number;
}

/** Put in its place by vite.config.ts, from docs/openapi.json. */
declare const API_LIMITS: Limits;

export const LIMITS = API_LIMITS;
