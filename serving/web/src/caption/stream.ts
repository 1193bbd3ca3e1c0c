/** One caption request, streamed into whatever `Sink` makes of it. */
import { ApiError, send, type Schemas } from "../api/client";
import { captionEvents, type CaptionEvent } from "../api/events";

export type Trend = Schemas["Trend"];
export type Snapshot = Schemas["SnapshotInfo"];
export type Event<Type extends CaptionEvent["type"]> = Extract<CaptionEvent, { type: Type }>;

/** Code points [start, end) of a text mention the trend. */
export type Mark = Schemas["HighlightAnswer"];

export interface Ask {
  body: Record<string, unknown>;
  /** The id of the answer that this one refines. */
  parent?: string | null;
  key?: string;
  signal: AbortSignal;
}

/** Calls `heard` with each event, in order. Answers with the id under which the history keeps the answer, if it does. */
export async function ask({ body, parent, key, signal }: Ask, heard: (event: CaptionEvent, id: string | null) => void) {
  const response = await onceFree(signal, () =>
    send("POST", "/api/v1/caption/stream", {
      body,
      signal,
      query: { parent },
      ...(key && { headers: { "Idempotency-Key": key } }),
    }),
  );
  const id = response.headers.get("X-Caption-Id");
  if (!response.body) return;
  for await (const event of captionEvents(response.body)) heard(event, id);
}

const TRIES = 10;

/** A page that was loaded again asks while the server still lets go of the first stream with the same key. */
async function onceFree(signal: AbortSignal, attempt: () => Promise<Response>): Promise<Response> {
  for (let tries = 1; ; tries++) {
    try {
      return await attempt();
    } catch (error) {
      if (!(error instanceof ApiError) || error.code !== "in_progress" || tries === TRIES) throw error;
      await new Promise((resolve) => setTimeout(resolve, 1000 * (error.retryAfter ?? 1)));
      signal.throwIfAborted();
    }
  }
}
