/** Asks for a change to the caption above, in words or with one click. */
import { useState } from "react";

import { Icon } from "../ui/icon";
import { IconButton } from "../ui/controls";

/** Changes that the draft engine understands as well. */
const IDEAS = ["Shorter", "More playful", "Calmer", "Without the trend"];
const MAX_CHARS = 1000;

export function Refine({ disabled, onAsk }: { disabled: boolean; onAsk: (change: string) => void }) {
  const [change, setChange] = useState("");
  return (
    <details className="refine">
      <summary aria-disabled={disabled || undefined}>
        <Icon name="edit" />
        Change it
      </summary>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          if (!change.trim() || disabled) return;
          onAsk(change.trim());
          setChange("");
        }}
      >
        <div className="ideas">
          {IDEAS.map((idea) => (
            <button key={idea} type="button" className="chip" disabled={disabled} onClick={() => onAsk(idea)}>
              {idea}
            </button>
          ))}
        </div>
        <div className="refine-row">
          <input
            className="input"
            aria-label="What to change"
            placeholder="mention my shop …"
            dir="auto"
            maxLength={MAX_CHARS}
            value={change}
            onChange={(event) => setChange(event.target.value)}
          />
          <IconButton icon="send" type="submit" label="Change the caption" disabled={disabled || !change.trim()} />
        </div>
      </form>
    </details>
  );
}
