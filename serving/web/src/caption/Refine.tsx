/** Asks for a change to the caption above, in words or with one click. */
import { useState } from "react";

import { LIMITS } from "../api/limits";
import { Icon } from "../ui/icon";
import { IconButton } from "../ui/controls";

/** Changes that the draft engine understands as well. */
const IDEAS = ["Shorter", "More playful", "Calmer"];
const WITHOUT = "Without the trend";

interface RefineProps {
  /** Whether there is a trend in the caption. */
  lit: boolean;
  disabled: boolean;
  onAsk: (change: string) => void;
}

export function Refine({ lit, disabled, onAsk }: RefineProps) {
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
          {[...IDEAS, ...(lit ? [WITHOUT] : [])].map((idea) => (
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
            maxLength={LIMITS.turnChars}
            value={change}
            onChange={(event) => setChange(event.target.value)}
          />
          <IconButton icon="send" type="submit" label="Change the caption" disabled={disabled || !change.trim()} />
        </div>
      </form>
    </details>
  );
}
