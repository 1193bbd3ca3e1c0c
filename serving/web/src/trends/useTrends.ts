/** The trends that pass a question. */
import { useCallback } from "react";

import { get, type Schemas } from "../api/client";
import { usePages } from "../api/usePages";

export interface Question {
  q: string;
  region: string;
  category: string;
  stage: string;
}

export type Found = Schemas["Trends"];

const PAGE = 24;

export function useTrends(question: Question) {
  const ask = useCallback(
    (cursor: string | null, signal: AbortSignal) =>
      get("/api/v1/trends", { query: { ...question, limit: PAGE, cursor }, signal }),
    [question],
  );
  return usePages(ask);
}
