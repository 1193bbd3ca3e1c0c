import { readFileSync } from "node:fs";

import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

import type { Limits } from "./src/api/limits";

// The server that answers the API while the page is worked on with `npm run dev`.
const server = process.env["TRENDRAG_SERVER"] ?? "http://127.0.0.1:8000";

export default defineConfig({
  base: "/",
  plugins: [react()],
  define: { API_LIMITS: JSON.stringify(limits()) },
  build: {
    outDir: "../http/static/app",
    emptyOutDir: true,
    target: "es2022",
    // The page's CSP allows no data: addresses: every asset is a file.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
  // The sample photo is the one of `trendrag demo`, outside of this folder.
  server: { fs: { allow: ["../.."] }, proxy: { "/api": server, "/readyz": server, "/healthz": server } },
});

/** What the types that are made of the API's description can't say. A field that is gone breaks the build. */
function limits(): Limits {
  interface Field {
    maximum?: number;
    maxLength?: number;
    maxItems?: number;
    anyOf?: Field[];
  }
  const text = readFileSync(new URL("../../docs/openapi.json", import.meta.url), "utf-8");
  const { schemas } = (JSON.parse(text) as { components: { schemas: Record<string, { properties: Record<string, Field> }> } })
    .components;
  const most = (schema: string, name: string, kind: "maximum" | "maxLength" | "maxItems"): number => {
    const field = schemas[schema]?.properties[name];
    const found = field?.[kind] ?? field?.anyOf?.find((each) => each[kind] !== undefined)?.[kind];
    if (found === undefined) throw new Error(`docs/openapi.json has no ${kind} of ${schema}.${name}`);
    return found;
  };
  return {
    candidates: most("CaptionBody", "candidates", "maximum"),
    noteChars: most("CaptionBody", "note", "maxLength"),
    toneChars: most("CaptionBody", "tone", "maxLength"),
    excluded: most("CaptionBody", "exclude", "maxItems"),
    turns: most("CaptionBody", "turns", "maxItems"),
    turnChars: most("Turn", "text", "maxLength"),
    avoided: most("Regenerate", "avoid", "maxItems"),
  };
}
