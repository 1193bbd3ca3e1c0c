/** Asks for an API key where the server wants one, tries it, and lets the visitor be rid of it. */
import { useEffect, useRef, useState } from "react";

import { get, known } from "../api/client";
import { forgetUnfinished } from "../caption/unfinished";
import { useCell } from "../cell";
import { Button, Field, IconButton } from "../ui/controls";
import { Sheet } from "../ui/dialog";
import "./access.css";
import { access, forgetKey, keepKey } from "./key";

/** The public part of a key: `tr_`, and the id by which its operator lists it. */
const SHOWN_CHARS = 15;

/** Nothing where no key is wanted, which is most of the time. */
export function KeyPanel() {
  const { wanted } = useCell(access);
  const [entered, setEntered] = useState("");
  const [busy, setBusy] = useState(false);
  const field = useRef<HTMLInputElement>(null);
  useEffect(() => {
    if (!wanted) return;
    window.scrollTo({ top: 0 });
    field.current?.focus();
  }, [wanted]);
  if (!wanted) return null;

  /** Kept once the server knows it; what it may not do is told where it is wanted for. */
  async function tryIt(key: string) {
    setBusy(true);
    const failure = await get("/api/v1/platforms", { key }).then(() => null, known);
    setBusy(false);
    if (failure && failure.status !== 403) {
      access.update({ wanted: failure });
    } else {
      setEntered("");
      keepKey(key);
    }
  }

  return (
    <section className="key-panel" aria-labelledby="key-title">
      <form
        onSubmit={(event) => {
          event.preventDefault();
          if (entered) void tryIt(entered);
        }}
      >
        <h2 id="key-title">This server asks for an API key</h2>
        <p role="alert">
          {wanted.code === "key_missing" ? "Whoever runs it gives you one. It begins with “tr_”." : wanted.message}
        </p>
        <div className="key-row">
          <Field label="API key" hint="Kept in this tab until you close it, and sent to this server alone.">
            {(ids) => (
              <input
                {...ids}
                ref={field}
                className="input"
                type="password"
                autoComplete="current-password"
                autoCapitalize="none"
                spellCheck={false}
                maxLength={200}
                pattern="[!-~]+"
                title="Copy the key whole: it has no spaces and no letters with accents."
                value={entered}
                onChange={(event) => setEntered(event.target.value.trim())}
              />
            )}
          </Field>
          <Button kind="primary" type="submit" disabled={busy || !entered}>
            {busy ? "Trying it …" : "Use this key"}
          </Button>
        </div>
      </form>
    </section>
  );
}

/** Nothing where none is kept. */
export function KeyKept() {
  const { key } = useCell(access);
  const [open, setOpen] = useState(false);
  if (key === null) return null;

  /** What is shown was written for that key, and goes with it. */
  async function forget() {
    forgetKey();
    await forgetUnfinished();
    window.location.reload();
  }

  return (
    <>
      <IconButton icon="key" label="Your API key" onClick={() => setOpen(true)} />
      {open && (
        <Sheet title="Your API key" onClose={() => setOpen(false)}>
          <p>
            Captions and history here are those of your key{" "}
            <code>{key.slice(0, SHOWN_CHARS)}</code>. It is kept in this tab until you close it, and sent to this server alone.
          </p>
          <Button kind="danger" icon="trash" onClick={() => void forget()}>
            Forget it
          </Button>
        </Sheet>
      )}
    </>
  );
}
