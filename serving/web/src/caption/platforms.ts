/** What each platform takes, asked of the server once. */
import { useEffect, useState } from "react";

import { access } from "../access/key";
import { get, type Schemas } from "../api/client";
import { useCell } from "../cell";

export type PlatformRules = Schemas["PlatformAnswer"];

let asked: Promise<PlatformRules[]> | null = null;

/** Empty until the answer is there, and where there is none: the form then counts nothing. */
export function usePlatforms(): PlatformRules[] {
  const [rules, setRules] = useState<PlatformRules[]>([]);
  const { key } = useCell(access);
  useEffect(() => {
    let wanted = true;
    asked ??= get("/api/v1/platforms").then(({ items }) => items);
    asked.then(
      (items) => wanted && setRules(items),
      () => {
        asked = null; // asked again by whoever needs it next
      },
    );
    return () => {
      wanted = false;
    };
  }, [key]);
  return rules.length ? rules : ANYWHERE;
}

const ANYWHERE: PlatformRules[] = [
  { id: "generic", name: "social media", max_chars: 5000, usual_chars: 280, alt_chars: 1000, hashtags: 3, note: "" },
];
