/** Puts a caption right in its place. */
import { useEffect, useRef, useState } from "react";

import { Button } from "../ui/controls";

interface EditorProps {
  text: string;
  limit: number | null;
  onSave: (text: string) => void;
  onCancel: () => void;
}

export function Editor({ text, limit, onSave, onCancel }: EditorProps) {
  const [edited, setEdited] = useState(text);
  const area = useRef<HTMLTextAreaElement>(null);
  const length = Array.from(edited).length;
  const long = limit !== null && length > limit;
  useEffect(() => area.current?.focus(), []);
  return (
    <form
      className="editor"
      onSubmit={(event) => {
        event.preventDefault();
        if (edited.trim() && !long) onSave(edited.trim());
      }}
    >
      <textarea
        ref={area}
        className="input"
        aria-label="Your caption"
        dir="auto"
        rows={5}
        value={edited}
        onChange={(event) => setEdited(event.target.value)}
        onKeyDown={(event) => {
          if (event.key === "Escape") onCancel();
        }}
      />
      {long && (
        <p className="small over" role="alert">
          {length - limit} characters too many for this platform.
        </p>
      )}
      <div className="icon-row">
        <Button kind="primary" type="submit" disabled={!edited.trim() || long}>
          Save
        </Button>
        <Button onClick={onCancel}>Cancel</Button>
      </div>
    </form>
  );
}
