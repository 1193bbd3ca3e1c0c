/** Puts text into the clipboard and says so. */
import { useCallback } from "react";

import { useToast } from "./toast";

export function useCopy(): (text: string) => void {
  const say = useToast();
  return useCallback(
    (text: string) => {
      // Only there where the page came over TLS, or from this machine.
      const copied = (navigator.clipboard as Clipboard | undefined)?.writeText(text) ?? Promise.reject(new Error());
      copied.then(
        () => say("Copied."),
        () => say("The browser did not allow copying. Select the text and copy it yourself."),
      );
    },
    [say],
  );
}
