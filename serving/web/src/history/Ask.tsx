/** A button that removes something, and asks first: in its own place, so that the second press is not where the first was. */
import { useEffect, useRef, useState } from "react";

import { Button, IconButton } from "../ui/controls";

interface AskProps {
  /** What the first button does, in words. */
  label: string;
  question: string;
  yes: string;
  onYes: () => Promise<void>;
  /** With its name written out, not as an icon alone. */
  inWords?: boolean;
}

export function Ask({ label, question, yes, onYes, inWords = false }: AskProps) {
  const [asks, setAsks] = useState(false);
  const [busy, setBusy] = useState(false);
  const keep = useRef<HTMLButtonElement>(null);
  const first = useRef<HTMLButtonElement>(null);
  const wasAsked = useRef(false);
  useEffect(() => {
    if (asks) keep.current?.focus();
    else if (wasAsked.current) first.current?.focus();
    wasAsked.current = asks;
  }, [asks]);
  if (!asks) {
    const ask = () => setAsks(true);
    return inWords ? (
      <Button ref={first} kind="danger" icon="trash" onClick={ask}>
        {label}
      </Button>
    ) : (
      <IconButton ref={first} icon="trash" label={label} onClick={ask} />
    );
  }
  return (
    <div className="ask" role="group" aria-label={question}>
      <span className="small">{question}</span>
      <Button ref={keep} onClick={() => setAsks(false)}>
        Keep
      </Button>
      <Button
        kind="danger"
        disabled={busy}
        onClick={() => {
          setBusy(true);
          // Where it fails this is still here, and asks again.
          void onYes().finally(() => {
            setBusy(false);
            setAsks(false);
          });
        }}
      >
        {yes}
      </Button>
    </div>
  );
}
