/** Whether the server answers, asked again and again while somebody waits for it to come back. */
import { useEffect, useState } from "react";

const EVERY_MS = 2000;

/** Null as long as it is not known; nothing is asked where `waiting` is false. */
export function useReachable(waiting: boolean): boolean | null {
  const [reachable, setReachable] = useState<boolean | null>(null);
  useEffect(() => {
    if (!waiting) return;
    const controller = new AbortController();
    const look = () =>
      fetch("/healthz", { signal: controller.signal, cache: "no-store" }).then(
        ({ ok }) => setReachable(ok),
        () => controller.signal.aborted || setReachable(false),
      );
    void look();
    const timer = setInterval(() => void look(), EVERY_MS);
    return () => {
      clearInterval(timer);
      controller.abort();
    };
  }, [waiting]);
  return waiting ? reachable : null;
}
