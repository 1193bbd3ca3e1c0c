/** What the model saw, and a description for those who can't see the photo, written when it is asked for. */
import { useEffect, useRef, useState } from "react";

import { ApiError } from "../api/client";
import { Button } from "../ui/controls";
import { useCopy } from "../ui/copying";
import { useToast } from "../ui/toast";
import type { Board, Run } from "./board";

export function AltText({ board, run }: { board: Board; run: Run }) {
  const [text, setText] = useState("");
  const [writing, setWriting] = useState(false);
  const controller = useRef<AbortController>(null);
  const say = useToast();
  const copy = useCopy();
  useEffect(() => () => controller.current?.abort(), []);

  async function write() {
    controller.current = new AbortController();
    const { signal } = controller.current;
    setWriting(true);
    try {
      setText(await board.altText(signal));
    } catch (error) {
      if (!signal.aborted) say(error instanceof ApiError ? error.message : "The alt text could not be written.");
    } finally {
      if (!signal.aborted) setWriting(false);
    }
  }

  return (
    <section className="alt" aria-label="Alt text">
      <div className="alt-words" aria-live="polite">
        <h2 className="card-name">{text ? "Alt text" : "Seen in the photo"}</h2>
        <p>
          <bdi>{text || run.description || "The note stood alone."}</bdi>
        </p>
      </div>
      {text ? (
        <Button icon="copy" onClick={() => copy(text)}>
          Copy alt text
        </Button>
      ) : (
        <Button icon="image" disabled={writing} onClick={() => void write()}>
          {writing ? "Writing …" : "Write alt text"}
        </Button>
      )}
    </section>
  );
}
