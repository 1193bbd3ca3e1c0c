/** Short words about what was just done ("Copied"), seen at the foot of the page and told to screen readers. */
import { createContext, use, useCallback, useEffect, useMemo, useRef, useState, type ReactNode } from "react";

import { Button } from "./controls";

const SHOWN_MS = 6000;

export interface ToastAction {
  label: string;
  run: () => void;
}

interface Said {
  id: number;
  text: string;
  action: ToastAction | undefined;
}

type Say = (text: string, action?: ToastAction) => void;

const Toasts = createContext<Say>(() => undefined);

/** A function that shows a short message, with a button beside it where an action is given. */
export function useToast(): Say {
  return use(Toasts);
}

export function ToastArea({ children }: { children: ReactNode }) {
  const [said, setSaid] = useState<Said | null>(null);
  const count = useRef(0);
  const say = useCallback<Say>((text, action) => {
    count.current += 1;
    setSaid({ id: count.current, text, action });
  }, []);
  useEffect(() => {
    if (!said) return;
    const timer = setTimeout(() => setSaid(null), SHOWN_MS);
    return () => clearTimeout(timer);
  }, [said]);
  const shown = useMemo(
    () =>
      said && (
        <div className="toast" key={said.id}>
          <span>{said.text}</span>
          {said.action && (
            <Button
              kind="link"
              onClick={() => {
                setSaid(null);
                said.action?.run();
              }}
            >
              {said.action.label}
            </Button>
          )}
        </div>
      ),
    [said],
  );
  return (
    <Toasts value={say}>
      {children}
      <div className="toasts" role="status">
        {shown}
      </div>
    </Toasts>
  );
}
