/** Server-sent events as the answer to a POST, which the browser's EventSource can't read. */
import { ApiError, type Schemas } from "./client";

export type CaptionEvent =
  | Schemas["Described"]
  | Schemas["TrendsRetrieved"]
  | Schemas["Delta"]
  | Schemas["Highlight"]
  | Schemas["CandidateDone"]
  | Schemas["CandidateFailed"]
  | Schemas["Done"]
  | Schemas["Failed"];

/**
 * The events of a caption stream, in order. The last is always `done` or `failed`.
 *
 * @throws ApiError where the stream ends before that: the server went away, or something between cut it.
 */
export async function* captionEvents(stream: ReadableStream<Uint8Array>): AsyncGenerator<CaptionEvent, void> {
  let last: CaptionEvent["type"] | undefined;
  try {
    for await (const data of eventData(stream)) {
      const event = JSON.parse(data) as CaptionEvent;
      yield event;
      last = event.type;
    }
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw broken();
  }
  if (last !== "done" && last !== "failed") throw broken();
}

function broken(): ApiError {
  return new ApiError("broken", "The connection broke off before the end. Your photo and settings are still here: try again.");
}

/** The data of each event. Blocks end with an empty line; lines may end as they like; others than `data:` are skipped. */
async function* eventData(stream: ReadableStream<Uint8Array>): AsyncGenerator<string, void> {
  const reader = stream.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      rest = (rest + decoder.decode(value, { stream: true })).replaceAll("\r\n", "\n");
      const blocks = rest.split("\n\n");
      rest = blocks.pop() ?? "";
      for (const block of blocks) {
        const data = block
          .split("\n")
          .filter((line) => line.startsWith("data:"))
          .map((line) => line.slice(line[5] === " " ? 6 : 5))
          .join("\n");
        if (data) yield data;
      }
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}
